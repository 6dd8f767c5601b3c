package cluster

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/daisy-llm/daisy/model/offheap"
)

// probeBytes are beyond most caches, and read in some ten milliseconds.
const probeBytes = 128 << 20

// MeasureBandwidth reads memory with so many threads and says how fast that went, in GB/s (1e9 bytes); 0 if there is no
// memory to read. Decoding on a CPU is bound by this number. It takes some tens of milliseconds and memory that it gives
// back.
func MeasureBandwidth(threads int) float64 {
	p, err := NewProbe(probeBytes)
	if err != nil {
		return 0
	}
	defer p.Close()
	return p.Read(threads)
}

// Probe is memory to read, for those who measure more than once. It is for one caller at a time.
type Probe struct {
	memory []byte
}

// NewProbe takes size bytes; they should be more than the CPU's caches hold.
func NewProbe(size int) (*Probe, error) {
	memory, err := offheap.Alloc(size)
	if err != nil {
		return nil, fmt.Errorf("measure the speed of memory: %w", err)
	}
	const page = 4096
	for i := 0; i < len(memory); i += page {
		memory[i] = 1 // pages that were never written to are all one page, in the cache
	}
	return &Probe{memory}, nil
}

// Close gives the memory back.
func (p *Probe) Close() error {
	memory := p.memory
	p.memory = nil
	return offheap.Free(memory)
}

// Read reads all of it with each of several plain readers, shared among so many threads, and says how fast the fastest
// was, in GB/s (1e9 bytes): whatever disturbs a measurement makes it slower.
func (p *Probe) Read(threads int) float64 {
	threads = min(max(1, threads), runtime.NumCPU())
	best := 0.0
	for _, reader := range []func([]byte) int{search, count, searchFour} {
		begin := time.Now()
		found := p.share(threads, reader)
		if took := time.Since(begin); found == 0 && took > 0 { // nothing is there to be found
			best = max(best, float64(len(p.memory))/1e9/took.Seconds())
		}
	}
	return best
}

// share gives each thread its part of the memory, and returns how many of them found something.
func (p *Probe) share(threads int, reader func([]byte) int) int {
	found := make([]int, threads)
	var all sync.WaitGroup
	for t := range threads {
		part := p.memory[len(p.memory)/threads*t : len(p.memory)/threads*(t+1)]
		if t == threads-1 {
			part = p.memory[len(p.memory)/threads*t:]
		}
		all.Go(func() { found[t] = reader(part) })
	}
	all.Wait()
	total := 0
	for _, n := range found {
		total += n
	}
	return total
}

// absent is a byte that a Probe's memory does not hold. To look for it is what reads: the standard library does so with
// vectors, at less than a cycle for eight bytes, so that memory is the limit and not the arithmetic.
const absent = 0xff

func search(memory []byte) int {
	if bytes.IndexByte(memory, absent) >= 0 {
		return 1
	}
	return 0
}

func count(memory []byte) int { return bytes.Count(memory, []byte{absent}) }

// searchFour reads four places in turn: some CPUs fetch ahead for each.
func searchFour(memory []byte) int {
	const streams, piece = 4, 16 << 10
	found, stride := 0, len(memory)/streams/piece*piece
	for at := 0; at < stride; at += piece {
		for s := range streams {
			found += search(memory[s*stride+at:][:piece])
		}
	}
	return found + search(memory[streams*stride:])
}
