package kernel

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"unsafe"
)

// vectorOperations are all kernels on vectors, over four of them.
var vectorOperations = []struct {
	name string
	run  func(s *Set, a, b, c, d []float32)
}{
	{"RMSNorm", func(s *Set, a, b, c, d []float32) { s.RMSNorm(a, b, c, 1e-5) }},
	{"RMSNorm in place", func(s *Set, a, b, c, d []float32) { s.RMSNorm(b, b, c, 1e-5) }},
	{"LayerNorm", func(s *Set, a, b, c, d []float32) { s.LayerNorm(a, b, c, d, 1e-5) }},
	{"Add", func(s *Set, a, b, c, d []float32) { s.Add(a, b) }},
	{"Mul", func(s *Set, a, b, c, d []float32) { s.Mul(a, b) }},
	{"Scale", func(s *Set, a, b, c, d []float32) { s.Scale(a, 0.3) }},
	{"AddScaled", func(s *Set, a, b, c, d []float32) { s.AddScaled(a, b, 0.3) }},
	{"SwiGLU", func(s *Set, a, b, c, d []float32) { s.SwiGLU(a, b, c) }},
	{"GELU", func(s *Set, a, b, c, d []float32) { s.GELU(a, b) }},
	{"GELUErf", func(s *Set, a, b, c, d []float32) { s.GELUErf(a, b) }},
	{"SoftCap", func(s *Set, a, b, c, d []float32) { s.SoftCap(a, 30) }},
	{"Softmax", func(s *Set, a, b, c, d []float32) { s.Softmax(a) }},
	{"ExpSum", func(s *Set, a, b, c, d []float32) { b[0] = s.ExpSum(a, b, s.Max(b), 0.7) }},
	{"Finite", func(s *Set, a, b, c, d []float32) {
		if s.Finite(a) {
			b[0] = 0.5
		}
	}},
	{"AtLeast", func(s *Set, a, b, c, d []float32) {
		for i, at := range s.AtLeast(unsafe.Slice((*int32)(unsafe.Pointer(&b[0])), len(b)), a, c[0]) {
			d[i] = float32(at)
		}
		clear(b) // behind what counts, anything may be written
	}},
	{"Max", func(s *Set, a, b, c, d []float32) { a[0] = s.Max(a) }},
	{"ArgMax", func(s *Set, a, b, c, d []float32) { a[0] = float32(s.ArgMax(a)) }},
	{"RoPE halves", func(s *Set, a, b, c, d []float32) {
		s.RoPE(a, len(a), b[:len(a)/2], c[:len(a)/2], Halves)
	}},
	{"RoPE pairs", func(s *Set, a, b, c, d []float32) {
		s.RoPE(a, len(a), b[:len(a)/2], c[:len(a)/2], Consecutive)
	}},
	{"halves", func(s *Set, a, b, c, d []float32) {
		h := make([]uint16, len(a))
		s.FloatsToHalves(h, a)
		s.HalvesToFloats(b, h)
	}},
}

var vectorLengths = []int{1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 64, 65, 96, 100, 576, 1536, 4099}

// TestVectorsMatchReference runs every kernel on vectors with every Set, on ordinary and on peculiar values, aligned
// and not.
func TestVectorsMatchReference(t *testing.T) {
	for _, op := range vectorOperations {
		t.Run(op.name, func(t *testing.T) {
			r := newRandom(1)
			for _, n := range vectorLengths {
				for trial := range 6 {
					values := gaussian
					if trial%2 == 1 {
						values = peculiar
					}
					var in [4][]float32
					for i := range in {
						in[i] = values(r, n)
					}
					want := copies(in, 0)
					op.run(reference(), want[0], want[1], want[2], want[3])
					for _, s := range fastSets() {
						got := copies(in, trial)
						op.run(s, got[0], got[1], got[2], got[3])
						for i := range got {
							checkBits(t, fmt.Sprintf("%s, %d values, vector %d", s.Name, n, i), got[i], want[i])
						}
					}
				}
			}
		})
	}
}

// copies copies vectors to memory that is skip floats off a cache line.
func copies(in [4][]float32, skip int) (out [4][]float32) {
	for i, x := range in {
		out[i] = floats(Aligned(4 * (len(x) + 16)))[skip:][:len(x):len(x)]
		copy(out[i], x)
	}
	return out
}

func TestVectorsAgainstFloat64(t *testing.T) {
	r := newRandom(2)
	const n = 100
	x, w, b := gaussian(r, n), gaussian(r, n), gaussian(r, n)
	var sum, squares, exps, largest float64
	largest = math.Inf(-1)
	for _, v := range x {
		sum += float64(v)
		squares += float64(v) * float64(v)
		largest = max(largest, float64(v))
	}
	mean := sum / n
	var variance float64
	for _, v := range x {
		variance += (float64(v) - mean) * (float64(v) - mean) / n
		exps += math.Exp(float64(v) - largest)
	}
	for _, s := range Sets() {
		for _, c := range []struct {
			name string
			run  func(dst []float32)
			want func(i int) float64
		}{
			{"RMSNorm", func(dst []float32) { s.RMSNorm(dst, x, w, 1e-5) },
				func(i int) float64 { return float64(x[i]) / math.Sqrt(squares/n+1e-5) * float64(w[i]) }},
			{"LayerNorm", func(dst []float32) { s.LayerNorm(dst, x, w, b, 1e-5) },
				func(i int) float64 {
					return (float64(x[i])-mean)/math.Sqrt(variance+1e-5)*float64(w[i]) + float64(b[i])
				}},
			{"Softmax", func(dst []float32) { copy(dst, x); s.Softmax(dst) },
				func(i int) float64 { return math.Exp(float64(x[i])-largest) / exps }},
			{"ExpSum", func(dst []float32) { dst[0] = s.ExpSum(dst, x, float32(largest), 1) },
				func(i int) float64 {
					if i == 0 {
						return exps
					}
					return math.Exp(float64(x[i]) - largest)
				}},
			{"SwiGLU", func(dst []float32) { s.SwiGLU(dst, x, w) },
				func(i int) float64 { return float64(x[i]) / (1 + math.Exp(-float64(x[i]))) * float64(w[i]) }},
			{"GELU", func(dst []float32) { s.GELU(dst, x) },
				func(i int) float64 {
					v := float64(x[i])
					return v / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
				}},
			{"GELUErf", func(dst []float32) { s.GELUErf(dst, x) },
				func(i int) float64 { return float64(x[i]) / 2 * (1 + math.Erf(float64(x[i])/math.Sqrt2)) }},
			{"SoftCap", func(dst []float32) { copy(dst, x); s.SoftCap(dst, 3) },
				func(i int) float64 { return 3 * math.Tanh(float64(x[i])/3) }},
		} {
			got := make([]float32, n)
			c.run(got)
			for i, g := range got {
				if want := c.want(i); math.Abs(float64(g)-want) > 1e-6*(1+math.Abs(want)) {
					t.Errorf("%s, %s: [%d] is %g, want %g", s.Name, c.name, i, g, want)
					break
				}
			}
		}
	}
}

func TestRoPE(t *testing.T) {
	for _, s := range Sets() {
		for _, pairing := range []Pairing{Consecutive, Halves} {
			const headDim, heads, rotated = 20, 2, 16 // partial: the last four stay
			x := gaussian(newRandom(3), headDim*heads)
			cos, sin := make([]float32, rotated/2), make([]float32, rotated/2)
			for i := range cos {
				sine, cosine := SinCos(float64(i) * 0.7)
				cos[i], sin[i] = float32(cosine), float32(sine)
			}
			got := append([]float32{}, x...)
			s.RoPE(got, headDim, cos, sin, pairing)
			for h := range heads {
				for i := range headDim {
					want := float64(x[h*headDim+i])
					if i < rotated {
						pair, other, sign := i/2, i^1, float64(2*(i&1)-1)
						if pairing == Halves {
							pair, other, sign = i%8, i^8, float64(2*(i/8)-1)
						}
						want = want*float64(cos[pair]) + sign*float64(x[h*headDim+other])*float64(sin[pair])
					}
					if g := float64(got[h*headDim+i]); math.Abs(g-want) > 1e-6*(1+math.Abs(want)) {
						t.Fatalf("%s, pairing %d: head %d, dimension %d is %g, want %g", s.Name, pairing, h, i, g, want)
					}
				}
			}
		}
	}
}

func TestArgMax(t *testing.T) {
	nan := float32(math.NaN())
	for _, s := range Sets() {
		for _, c := range []struct {
			x    []float32
			want int
		}{
			{nil, 0},
			{[]float32{5}, 0},
			{[]float32{1, 3, 3, 2}, 1},
			{[]float32{nan, -infinity, -2, nan, -2}, 2},
			{[]float32{nan, nan}, 0},
			{[]float32{nan, -infinity}, 1},
			{append(make([]float32, 40), 1, 1), 40},
			{append(append(make([]float32, 20), 1), make([]float32, 43)...), 20},
		} {
			if got := s.ArgMax(c.x); got != c.want {
				t.Errorf("%s: ArgMax(%v) is %d, want %d", s.Name, c.x, got, c.want)
			}
		}
	}
}

func TestFiniteAndAtLeast(t *testing.T) {
	nan := float32(math.NaN())
	for _, s := range Sets() {
		for _, n := range []int{1, 15, 16, 17, 100, 4099} {
			x, indices := gaussian(newRandom(uint64(n)), n), make([]int32, n)
			if !s.Finite(x) {
				t.Errorf("%s: %d numbers are not finite", s.Name, n)
			}
			for _, at := range []int{0, n / 2, n - 1} {
				for _, bad := range []float32{nan, infinity, -infinity} {
					y := append([]float32{}, x...)
					if y[at] = bad; s.Finite(y) {
						t.Errorf("%s: %d values with %g at %d are finite", s.Name, n, bad, at)
					}
					var want []int32
					for i, v := range y {
						if v >= x[0] {
							want = append(want, int32(i))
						}
					}
					if got := s.AtLeast(indices, y, x[0]); !slices.Equal(got, want) {
						t.Errorf("%s: of %d values with %g at %d, those from %g on are %v, want %v", s.Name, n, bad, at, x[0], got, want)
					}
				}
			}
		}
	}
}

func TestHalves(t *testing.T) {
	for _, s := range Sets() {
		all := make([]uint16, 1<<16)
		for i := range all {
			all[i] = uint16(i)
		}
		values, back := make([]float32, len(all)), make([]uint16, len(all))
		s.HalvesToFloats(values, all)
		s.FloatsToHalves(back, values)
		for i, h := range all {
			if want := h; back[i] != want && !(values[i] != values[i] && back[i] == want|0x200) {
				t.Fatalf("%s: %04x became %g and then %04x", s.Name, h, values[i], back[i])
			}
		}
		for _, c := range []struct {
			x    float32
			want uint16
		}{
			{65519.996, 0x7bff}, {65520, 0x7c00}, {-65520, 0xfc00}, {1e10, 0x7c00}, // half way to the next rounds to even: infinity
			{1 + 1.0/2048, 0x3c00}, {1 + 3.0/2048, 0x3c02}, {1 + 1.0/2048 + 1.0/(1<<23), 0x3c01},
			{5.9604645e-08, 1}, {2.9802322e-08, 0}, {2.9802326e-08, 1}, {-1e-30, 0x8000}, {6.1035156e-05, 0x0400}, {6.1020e-05, 0x0400},
		} {
			x, got := make([]float32, 17), make([]uint16, 17)
			x[0], x[16] = c.x, c.x
			s.FloatsToHalves(got, x)
			if got[0] != c.want || got[16] != c.want {
				t.Errorf("%s: %g became %04x and %04x, want %04x", s.Name, c.x, got[0], got[16], c.want)
			}
		}
	}
}
