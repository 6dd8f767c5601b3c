//go:build !purego

package kernel

import (
	"slices"
	"testing"
)

// BenchmarkTileParts says what bounds a product of tiles: the whole of it, for 16 rows, 16 tokens and 32 columns at a time,
// beside its parts. Nothing to run where there are no tiles.
func BenchmarkTileParts(b *testing.B) {
	if !slices.ContainsFunc(Sets(), func(s *Set) bool { return s.tiles }) {
		b.Log("this CPU has no tiles")
		return
	}
	const blocks, tokens = 64, 16
	weights := Aligned(blocks * expandedBytes)
	x := Aligned(ActivationBytes(Q4_1, tokens, blocks*32))
	spare := Aligned(2 * tileBytes)
	out := make([]float32, tokens*16)
	for _, part := range []struct {
		name string
		run  func(w, x *byte, out *float32, spare *byte, stride, blocks, panels, skip, first int)
	}{
		{"whole", tilesMinimax16AMX},
		{"tiles", tilesAloneAMX},
		{"floats", floatsAloneAMX},
		{"floats beside a tile", floatsBesideTileAMX},
	} {
		b.Run(part.name, func(b *testing.B) {
			for b.Loop() {
				part.run(at(weights), at(x), at(out), at(spare), 16*4, blocks, 1, 0, 1)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/blocks, "ns/block")
		})
	}
}
