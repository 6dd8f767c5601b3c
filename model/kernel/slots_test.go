package kernel

import (
	"fmt"
	"testing"
)

// TestSlots: the memory of a span's slots is where Store puts them, every byte once, and with the rest makes up the page.
func TestSlots(t *testing.T) {
	set := Sets()[0]
	for _, shape := range []PageShape{
		{Format: F16, Heads: 3, KeyDim: 6, ValueDim: 6}, {Format: F32, Heads: 2, KeyDim: 16, ValueDim: 16}, {Format: F16, Heads: 1, KeyDim: 64, ValueDim: 64},
	} {
		for _, span := range [][2]int{{0, 64}, {0, 1}, {63, 64}, {0, 16}, {15, 17}, {16, 48}, {5, 60}, {1, 64}, {0, 63}, {7, 7}} {
			t.Run(fmt.Sprint(shape, span), func(t *testing.T) {
				page := Page(Aligned(shape.Bytes()))
				ones := make([]float32, max(shape.KeyDim, shape.ValueDim))
				for i := range ones {
					ones[i] = 1
				}
				for slot := span[0]; slot < span[1]; slot++ {
					for h := range shape.Heads {
						set.Store(shape, page, h, slot, ones[:shape.KeyDim], ones[:shape.ValueDim])
					}
				}
				visited := make([]int, len(page))
				total, last := 0, -1
				shape.Slots(span[0], span[1], func(at, n int) {
					if at <= last {
						t.Fatalf("a run at %d follows %d", at, last)
					}
					last = at
					total += n
					for i := at; i < at+n; i++ {
						visited[i]++
					}
				})
				if want := (span[1] - span[0]) * shape.Bytes() / TilePositions; total != want {
					t.Errorf("%d bytes, want %d", total, want)
				}
				for i, b := range page {
					if b != 0 && visited[i] != 1 || visited[i] > 1 {
						t.Fatalf("byte %d of a slot in the span is visited %d times", i, visited[i])
					}
				}
			})
		}
	}
}
