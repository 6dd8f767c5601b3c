package cluster

import (
	"slices"
	"testing"
	"time"
)

func TestMeasuredOnThisMachine(t *testing.T) {
	for _, threads := range []int{-1, 1, 1 << 20} {
		if speed := MeasureBandwidth(threads, 1<<30); !(speed > 0.05 && speed < 10000) {
			t.Errorf("%d threads read %g GB/s", threads, speed)
		} else {
			t.Logf("%d threads read %.1f GB/s", threads, speed)
		}
	}
	if speed := MeasureBandwidth(1, leastProbe); speed != 0 {
		t.Errorf("a machine that has %d bytes to spare reads %g GB/s: that much was taken to find out", leastProbe, speed)
	}
	one, err := OfferedMemory(1)
	if err != nil || one <= 0 {
		t.Fatalf("offers %d, %v", one, err)
	}
	// The memory of a machine in use changes between two looks.
	if three, err := OfferedMemory(3); err != nil || three < one/6 || three > one*2/3 {
		t.Errorf("one of three offers %d of %d, %v", three, one, err)
	}
	if _, err := OfferedMemory(0); err == nil {
		t.Error("no shard offers memory")
	}
}

// Every byte is read once, whatever the reader and the number of threads: another byte makes another sum, and then there is
// no speed.
func TestProbeReadsAllOfItsMemory(t *testing.T) {
	const size = 4*16<<10 + 4097
	p, err := NewProbe(size)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if len(p.readers) == 0 {
		t.Fatal("no readers")
	}
	for _, r := range p.readers {
		for _, threads := range []int{1, 2, 3} {
			if sum := p.share(r, threads); sum != p.sum {
				t.Errorf("%s, %d threads: the sum is %d, not %d", r.Name, threads, sum, p.sum)
			}
			for _, at := range []int{0, 8, size / 3 &^ 7, size/3&^7 + 8, size / 2 &^ 7, (size - 2) &^ 7, (size - 1) &^ 7} {
				p.memory[at]++
				if sum := p.share(r, threads); sum != p.sum+1 {
					t.Errorf("%s, %d threads: the sum is %d, not %d, with one more at %d", r.Name, threads, sum, p.sum+1, at)
				}
				if speed := p.Read(r, threads, 0); speed != 0 {
					t.Errorf("%s, %d threads: %g GB/s of the wrong memory", r.Name, threads, speed)
				}
				p.memory[at]--
			}
		}
	}
	if _, err := NewProbe(0); err == nil {
		t.Error("a probe of no memory")
	}
}

func TestFastestIsOneOfTheReaders(t *testing.T) {
	for _, size := range []int{100, 5 * 4096, 1<<20 + 1} {
		fastest(t, size)
	}
}

func fastest(t *testing.T, size int) {
	p, err := NewProbe(size)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, r := range p.readers {
		if q := p.quarter(); q.share(r, 1) != q.sum || q.sum == 0 || len(q.memory) > max(size/4, 4096) {
			t.Errorf("a quarter of %d bytes has %d, and the sum %d, not %d", size, len(q.memory), q.share(r, 1), q.sum)
		}
	}
	for _, threads := range []int{0, 1, 2, 1 << 20} {
		fastest := p.Fastest(threads)
		if !slices.Contains(p.readers, fastest) {
			t.Errorf("%d threads: %v is none of the readers", threads, fastest)
		}
		if speed := p.Read(fastest, threads, time.Millisecond); !(speed > 0) {
			t.Errorf("%d threads read %g GB/s", threads, speed)
		}
	}
}
