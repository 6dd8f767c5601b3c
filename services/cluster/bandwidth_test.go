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
	for words := range 20 {
		part := make([]uint64, words)
		want := uint64(0)
		for i := range part {
			part[i] = uint64(i*i + 1)
			want += part[i]
		}
		if got := sum(part); got != want {
			t.Errorf("%d words: %d, want %d", words, got, want)
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
