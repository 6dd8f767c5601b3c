package kernel

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// wordSum is what every Reader must give, written as it is defined.
func wordSum(memory []byte) (sum uint64) {
	for i, b := range memory {
		sum += uint64(b) << (8 * (i % 8))
	}
	return sum
}

// everyReader runs a test with each Reader of each Set.
func everyReader(t *testing.T, run func(t *testing.T, r Reader)) {
	for _, s := range Sets() {
		readers := s.Readers()
		if len(readers) == 0 {
			t.Errorf("%s has no reader", s.Name)
		}
		for _, r := range readers {
			t.Run(s.Name+"/"+r.Name, func(t *testing.T) { run(t, r) })
		}
	}
}

// readSizes have no, one and many steps and pieces in a stream, and what is left over.
func readSizes() []int {
	sizes := []int{0, 1, 7, 8, 9, 63, 64, 65, readStep - 1, readStep, readStep + 1}
	for _, streams := range []int{2, 4, 8} {
		sizes = append(sizes, streams*readStep-1, streams*readStep, streams*readStep+9, streams*readPiece, streams*(readPiece+readStep)+77)
	}
	return sizes
}

func pattern(memory []byte) {
	for i := range memory {
		memory[i] = byte(i*i>>3 + 7*i)
	}
}

// Every byte is read once: one that changes changes the sum by as much, wherever it is.
func TestReadersReadEveryByteOnce(t *testing.T) {
	everyReader(t, func(t *testing.T, r Reader) {
		for _, n := range readSizes() {
			memory := make([]byte, n)
			pattern(memory)
			want := wordSum(memory)
			if got := r.Sum(memory); got != want {
				t.Fatalf("%d bytes: %#x, not %#x", n, got, want)
			}
			for at := 0; at < n; at += 1 + n/97 {
				memory[at]++
				if got, want := r.Sum(memory), wordSum(memory); got != want {
					t.Fatalf("%d bytes, another byte at %d: %#x, not %#x", n, at, got, want)
				}
			}
		}
	})
}

func TestReadersCarry(t *testing.T) {
	everyReader(t, func(t *testing.T, r Reader) {
		memory := make([]byte, 8*readStep*2)
		for at := 0; at < len(memory); at += 8 {
			binary.LittleEndian.PutUint64(memory[at:], 1<<64-1)
		}
		if got, want := r.Sum(memory), -uint64(len(memory)/8); got != want {
			t.Errorf("%#x, not %#x", got, want)
		}
	})
}

func TestReadersNeedNoAlignment(t *testing.T) {
	everyReader(t, func(t *testing.T, r Reader) {
		memory := make([]byte, 8*readStep+200)
		pattern(memory)
		for _, from := range []int{1, 8, 33} {
			if got, want := r.Sum(memory[from:]), wordSum(memory[from:]); got != want {
				t.Errorf("from %d: %#x, not %#x", from, got, want)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	memory := make([]byte, 256<<20)
	pattern(memory)
	for _, s := range Sets() {
		for _, r := range s.Readers() {
			b.Run(fmt.Sprintf("%s/%s", s.Name, r.Name), func(b *testing.B) {
				b.SetBytes(int64(len(memory)))
				for b.Loop() {
					r.Sum(memory)
				}
			})
		}
	}
}
