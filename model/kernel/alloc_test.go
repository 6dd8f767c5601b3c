package kernel

import "testing"

// TestKernelsAllocateNothing covers a whole layer's worth of calls, with rows that do not fill the last group.
func TestKernelsAllocateNothing(t *testing.T) {
	r := newRandom(1)
	shape := PageShape{F16, 1, 64, 64}
	for _, s := range Sets() {
		h := newHistory(s, r, shape, 70)
		at := &Attention{Shape: shape, Pages: h.pages, Queries: 1, Rows: 3, End: 68, Scale: 1, QueryStride: 64, OutStride: 64}
		scratch := NewAttentionScratch(shape, 3)
		q, out := gaussian(r, 3*64), make([]float32, 3*64)
		v := [4][]float32{gaussian(r, 100), gaussian(r, 100), gaussian(r, 100), gaussian(r, 100)}
		halves := make([]uint16, 100)
		for _, f := range allFormats {
			const rows, tokens = 40, 33
			cols := wholeBlocks(f, 64)
			m := NewMatrix(Aligned(PackedSize(f, rows, cols)), f, rows, cols)
			src := ordinaryRows(r, f, rows, cols)
			x, product := gaussian(r, tokens*cols), make([]float32, tokens*rows)
			memory := Aligned(ActivationBytes(f, tokens, cols))
			got := testing.AllocsPerRun(5, func() {
				m.Pack(0, m.Groups(), src)
				a := s.Activations(memory, f, tokens, cols)
				s.Quantize(a, x, cols, 0, tokens)
				s.MatMul(product, rows, m, 0, m.Groups(), a, 0, tokens)
			})
			if got != 0 {
				t.Errorf("%s: a product of %v allocates %g times", s.Name, f, got)
			}
		}
		for _, op := range vectorOperations {
			if op.name == "halves" { // the test's own buffer
				continue
			}
			if got := testing.AllocsPerRun(5, func() { op.run(s, v[0], v[1], v[2], v[3]) }); got != 0 {
				t.Errorf("%s: %s allocates %g times", s.Name, op.name, got)
			}
		}
		got := testing.AllocsPerRun(5, func() {
			s.FloatsToHalves(halves, v[0])
			s.HalvesToFloats(v[0], halves)
			s.Store(shape, h.pages[1], 0, 69, h.keys[:64], h.values[:64])
			s.Attend(out, q, at, scratch)
		})
		if got != 0 {
			t.Errorf("%s: attention allocates %g times", s.Name, got)
		}
	}
}
