package kernel

import "fmt"

// Pairing says which two dimensions of a head RoPE rotates together.
type Pairing uint8

const (
	Consecutive Pairing = iota // 2i and 2i+1, as the paper has it
	Halves                     // i and i + n/2
)

// RoPE rotates the first n = 2*len(cos) dimensions of every head of x, (heads, headDim), in place, by the angles of one
// position: (a, b) becomes (a cos - b sin, b cos + a sin), each product and the sum rounded (Su et al., 2021).
func (s *Set) RoPE(x []float32, headDim int, cos, sin []float32, pairing Pairing) {
	half := len(cos)
	if len(sin) != half || headDim <= 0 || 2*half > headDim || len(x)%headDim != 0 {
		panic(fmt.Sprintf("kernel: RoPE of %d values, heads of %d, %d cosines, %d sines", len(x), headDim, half, len(sin)))
	}
	for ; len(x) > 0; x = x[headDim:] {
		if pairing == Halves {
			a, b := x[:half], x[half:2*half]
			body := half &^ (Lanes - 1)
			s.rotateHalves(a[:body], b[:body], cos[:body], sin[:body])
			rotateHalvesReference(a[body:], b[body:], cos[body:], sin[body:])
		} else {
			body := half &^ (Lanes/2 - 1) // sixteen values are eight pairs
			s.rotatePairs(x[:2*body], cos[:body], sin[:body])
			rotatePairsReference(x[2*body:2*half], cos[body:], sin[body:])
		}
	}
}

func rotateHalvesReference(a, b, cos, sin []float32) {
	for i, c := range cos {
		x, y := a[i], b[i]
		a[i] = float32(x*c) - float32(y*sin[i])
		b[i] = float32(y*c) + float32(x*sin[i])
	}
}

func rotatePairsReference(x, cos, sin []float32) {
	for i, c := range cos {
		a, b := x[2*i], x[2*i+1]
		x[2*i] = float32(a*c) - float32(b*sin[i])
		x[2*i+1] = float32(b*c) + float32(a*sin[i])
	}
}
