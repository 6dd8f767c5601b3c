package cluster

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

const (
	probeBytes  = 128 << 20 // beyond most caches, and read in some ten milliseconds
	probePasses = 2         // the faster one counts: whatever disturbs a measurement makes it slower
)

// MeasureBandwidth reads memory with so many threads and says how fast that went, in GB/s (1e9 bytes). Decoding on a
// CPU is bound by this number. It takes some tens of milliseconds and memory that it gives back.
func MeasureBandwidth(threads int) float64 {
	threads = min(max(1, threads), runtime.NumCPU())
	words := make([]uint64, probeBytes/8)
	for i := 0; i < len(words); i += 512 {
		words[i] = uint64(i) // pages of 4 KiB that were never written to are all one page, in the cache
	}
	best := time.Duration(0)
	for range probePasses {
		if took := readAll(words, threads); best == 0 || took < best {
			best = took
		}
	}
	words = nil
	debug.FreeOSMemory()
	if best <= 0 {
		return 0
	}
	return probeBytes / 1e9 / best.Seconds()
}

// readAll is how long the threads take to read all words once.
func readAll(words []uint64, threads int) time.Duration {
	sums := make([]uint64, threads)
	begin := time.Now()
	var wg sync.WaitGroup
	for t := range threads {
		part := words[len(words)*t/threads : len(words)*(t+1)/threads]
		wg.Go(func() { sums[t] = sum(part) })
	}
	wg.Wait()
	took := time.Since(begin)
	runtime.KeepAlive(sums)
	return took
}

// sum adds a cache line at a time, in chains that do not wait for each other: memory is to be the limit, not the adder.
//
//go:noinline
func sum(words []uint64) uint64 {
	var a, b, c, d, e, f, g, h uint64
	for len(words) >= 8 {
		line := (*[8]uint64)(words)
		a, b, c, d = a+line[0], b+line[1], c+line[2], d+line[3]
		e, f, g, h = e+line[4], f+line[5], g+line[6], h+line[7]
		words = words[8:]
	}
	for _, w := range words {
		a += w
	}
	return a + b + c + d + e + f + g + h
}
