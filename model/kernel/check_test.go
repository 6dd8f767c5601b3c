package kernel

import (
	"math"
	"testing"
)

// multiply is the whole of a product: x is (tokens, m.Cols), out (tokens, m.Rows).
func multiply(s *Set, out []float32, m Matrix, x []float32, tokens int) {
	a := s.Activations(Aligned(ActivationBytes(m.Format, tokens, m.Cols)), m.Format, tokens, m.Cols)
	s.Quantize(a, x, m.Cols, 0, tokens)
	s.MatMul(out, m.Rows, m, 0, m.Groups(), a, 0, tokens)
}

// checkBits compares bit for bit; any NaN equals any other.
func checkBits(t testing.TB, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i, g := range got {
		w := want[i]
		if math.Float32bits(g) != math.Float32bits(w) && !(g != g && w != w) {
			t.Fatalf("%s: [%d] is %g (%08x), want %g (%08x)", what, i, g, math.Float32bits(g), w, math.Float32bits(w))
		}
	}
}
