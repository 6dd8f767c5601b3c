package cluster

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/offheap"
)

const (
	// probeBytes are beyond most caches, and read in some ten milliseconds. A machine that cannot spare them is measured with what it can,
	// but not within its caches.
	probeBytes, leastProbe = 128 << 20, 16 << 20

	// tries are how often each reader is measured to find the fastest.
	tries = 3

	pageBytes = 4096
	lineBytes = 64
)

// MeasureBandwidth reads memory with so many threads and says how fast that went, in GB/s (1e9 bytes); 0 if there is no
// memory to read. Decoding on a CPU is bound by this number. It takes about a hundred milliseconds, and at most half of the memory
// that it may have, which it gives back.
func MeasureBandwidth(threads int, memory int64) float64 {
	size := min(probeBytes, memory/2)
	if size < leastProbe {
		return 0
	}
	p, err := NewProbe(int(size))
	if err != nil {
		return 0
	}
	defer p.Close()
	best := 0.0
	for _, r := range p.readers { // whatever disturbs a measurement makes it slower
		best = max(best, p.Read(r, threads, 0))
	}
	return best
}

// Probe is memory to read, for those who measure more than once. It is for one caller at a time.
type Probe struct {
	memory  []byte
	sum     uint64 // of its words
	readers []kernel.Reader
}

// NewProbe takes size bytes; they should be several times what the CPU's caches hold.
func NewProbe(size int) (*Probe, error) {
	memory, err := offheap.Alloc(size)
	if err != nil {
		return nil, fmt.Errorf("measure the speed of memory: %w", err)
	}
	p := &Probe{memory: memory, readers: kernel.Best().Readers()}
	for i := 0; i < len(memory); i += pageBytes {
		memory[i] = 1 // pages that were never written to are all one page, in the cache
		p.sum++
	}
	return p, nil
}

// Close gives the memory back.
func (p *Probe) Close() error {
	memory := p.memory
	p.memory = nil
	return offheap.Free(memory)
}

// Fastest measures every reader three times, in turn, with so many threads: the one with the highest median. A quarter of the
// memory is enough to tell them apart.
func (p *Probe) Fastest(threads int) kernel.Reader {
	p = p.quarter()
	speeds := make([][tries]float64, len(p.readers))
	for try := range tries {
		for i, r := range p.readers {
			speeds[i][try] = p.Read(r, threads, 0)
		}
	}
	best := 0
	for i := range speeds {
		slices.Sort(speeds[i][:])
		if cmp.Less(speeds[best][tries/2], speeds[i][tries/2]) {
			best = i
		}
	}
	return p.readers[best]
}

// quarter is the first quarter of the memory, or all of it where that is little.
func (p *Probe) quarter() *Probe {
	pages := len(p.memory) / 4 / pageBytes
	if pages == 0 {
		return p
	}
	return &Probe{memory: p.memory[:pages*pageBytes], sum: uint64(pages), readers: p.readers}
}

// Read reads all of the memory, shared among so many threads, once and then again until so much time has passed, and says
// how fast that went, in GB/s (1e9 bytes).
func (p *Probe) Read(r kernel.Reader, threads int, atLeast time.Duration) float64 {
	threads = min(max(1, threads), runtime.NumCPU())
	begin := time.Now()
	for passes := 1; ; passes++ {
		if p.share(r, threads) != p.sum { // never: but now the reading is of use, and no compiler leaves it out
			return 0
		}
		if took := time.Since(begin); took > 0 && took >= atLeast {
			return float64(passes) * float64(len(p.memory)) / 1e9 / took.Seconds()
		}
	}
}

// share gives each thread its part of the memory, in whole lines, and returns the sum of all.
func (p *Probe) share(r kernel.Reader, threads int) uint64 {
	sums := make([]uint64, threads)
	part := len(p.memory) / threads / lineBytes * lineBytes
	var all sync.WaitGroup
	for t := range threads {
		memory := p.memory[part*t : part*(t+1)]
		if t == threads-1 {
			memory = p.memory[part*t:]
		}
		all.Go(func() { sums[t] = r.Sum(memory) })
	}
	all.Wait()
	var total uint64
	for _, sum := range sums {
		total += sum
	}
	return total
}
