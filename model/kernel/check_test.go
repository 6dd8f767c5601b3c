package kernel

import (
	"math"
	"math/rand/v2"
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

// fastSets are all but the reference; where there are none, the caller's comparisons are empty.
func fastSets() []*Set { return Sets()[1:] }

func reference() *Set { return Sets()[0] }

func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// gaussian fills a new slice with values around 0, of moderately different magnitudes.
func gaussian(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64() * math.Exp(r.NormFloat64()))
	}
	return x
}

// peculiar fills a new slice with what breaks kernels: any bits at all, and the ends of every range.
func peculiar(r *rand.Rand, n int) []float32 {
	special := []float32{
		0, negativeZero, 1, -1, 0.5, 127, -127, 127.5, 88.72283, 88.722832, 88.73, -87.25, -87.2501, -88.73, 0.625, 4, 65504, 65520, 1e-8,
		math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32, 1.1754944e-38, 1e-39, 7.8886090e-31, 7.8e-31,
		infinity, -infinity, float32(math.NaN()),
	}
	x := make([]float32, n)
	for i := range x {
		switch r.IntN(4) {
		case 0:
			x[i] = special[r.IntN(len(special))]
		case 1:
			x[i] = math.Float32frombits(r.Uint32())
		case 2:
			x[i] = math.Float32frombits(r.Uint32() & 0x807fffff) // denormal
		default:
			x[i] = float32(r.NormFloat64() * 30)
		}
	}
	return x
}

var (
	infinity     = float32(math.Inf(1))
	negativeZero = float32(math.Copysign(0, -1))
)
