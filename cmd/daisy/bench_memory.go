package main

import (
	"fmt"
	"io"
	"time"

	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/services/cluster"
)

const (
	// memoryBytes are read to measure the machine: several times the largest caches. The last-level cache of a whole server,
	// hundreds of megabytes, may be visible to a small virtual machine on it.
	memoryBytes = 4 << 30

	// memoryTime is how long reading is measured at least: what else a machine does disturbs short measurements most.
	memoryTime = time.Second
)

// benchMemory is how close generating came to the speed of memory.
type benchMemory struct {
	MemorySpeed float64 `json:"memory_gb_per_second"` // that the fastest plain reader reaches, the median
	WeightBytes int64   `json:"weight_bytes"`         // that every token reads
	MemoryShare float64 `json:"memory_share"`         // of that speed, the median of the pairs
}

// memoryReader reads memory as fast as this machine can.
type memoryReader struct {
	probe   *cluster.Probe
	fastest map[int]kernel.Reader // for so many threads
	say     io.Writer
}

// newMemoryReader takes at most a quarter of the memory there is: the model needs its part.
func newMemoryReader(say io.Writer) (*memoryReader, error) {
	size := int64(memoryBytes)
	if offered, err := cluster.OfferedMemory(1); err == nil {
		size = max(1<<20, min(size, offered/4))
	}
	probe, err := cluster.NewProbe(int(size))
	if err != nil {
		return nil, err
	}
	return &memoryReader{probe: probe, fastest: make(map[int]kernel.Reader), say: say}, nil
}

func (m *memoryReader) close() error { return m.probe.Close() }

// read says how many GB/s so many threads read. The fastest reader is chosen when it is first asked for that many.
func (m *memoryReader) read(threads int) float64 {
	reader, known := m.fastest[threads]
	if !known {
		reader = m.probe.Fastest(threads)
		m.fastest[threads] = reader
	}
	speed := m.probe.Read(reader, threads, memoryTime)
	fmt.Fprintf(m.say, "daisy: memory, %s, %s: %.1f GB/s\n", count(threads, "thread"), reader.Name, speed)
	return speed
}

func (b *bench) writeMemory(w io.Writer) error {
	for _, r := range b.results {
		if r.benchMemory == nil {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s: memory is read at %.1f GB/s; a token reads %.3f GB of weights: generating reaches %.0f %% of that\n",
			count(r.Threads, "thread"), r.MemorySpeed, float64(r.WeightBytes)/1e9, 100*r.MemoryShare); err != nil {
			return err
		}
	}
	return nil
}
