package cluster

import "testing"

func TestMeasuredOnThisMachine(t *testing.T) {
	for _, threads := range []int{-1, 1, 1 << 20} {
		if speed := MeasureBandwidth(threads); !(speed > 0.05 && speed < 10000) {
			t.Errorf("%d threads read %g GB/s", threads, speed)
		} else {
			t.Logf("%d threads read %.1f GB/s", threads, speed)
		}
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

// Every byte is read, whatever the reader and the number of threads: a single one that is there is found.
func TestReadersMissNothing(t *testing.T) {
	const size = 4*16<<10 + 4097
	p, err := NewProbe(size)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for name, reader := range map[string]func([]byte) int{"search": search, "count": count, "four": searchFour} {
		for _, threads := range []int{1, 2, 3} {
			if n := p.share(threads, reader); n != 0 {
				t.Errorf("%s, %d threads: found %d of nothing", name, threads, n)
			}
			for _, at := range []int{0, 1, size / 3, size/3 + 1, size / 2, size - 2, size - 1} {
				before := p.memory[at]
				p.memory[at] = absent
				if n := p.share(threads, reader); n != 1 {
					t.Errorf("%s, %d threads: found %d times what is at %d", name, threads, n, at)
				}
				p.memory[at] = before
			}
		}
	}
	if _, err := NewProbe(0); err == nil {
		t.Error("a probe of no memory")
	}
}
