package kernel

import "fmt"

// RMSNorm computes dst = x / sqrt(mean(x^2) + eps) * w (Zhang and Sennrich, 2019). dst may be x.
func (s *Set) RMSNorm(dst, x, w []float32, eps float32) {
	checkLengths("RMSNorm", len(x), len(dst), len(w))
	body := len(x) &^ (Lanes - 1)
	var acc lanes
	s.sumSquares(&acc, x[:body])
	sumSquaresReference(&acc, x[body:])
	inverse := 1 / sqrt32(treeSum(&acc)/float32(len(x))+eps)
	s.scaleMul(dst[:body], x[:body], w[:body], inverse)
	scaleMulReference(dst[body:], x[body:], w[body:], inverse)
}

// LayerNorm computes dst = (x - mean(x)) / sqrt(variance(x) + eps) * w + b (Ba et al., 2016). dst may be x.
func (s *Set) LayerNorm(dst, x, w, b []float32, eps float32) {
	checkLengths("LayerNorm", len(x), len(dst), len(w), len(b))
	body := len(x) &^ (Lanes - 1)
	var sum, squares lanes
	s.sum(&sum, x[:body])
	sumReference(&sum, x[body:])
	mean := treeSum(&sum) / float32(len(x))
	s.sumDeviations(&squares, x[:body], mean)
	sumDeviationsReference(&squares, x[body:], mean)
	inverse := 1 / sqrt32(treeSum(&squares)/float32(len(x))+eps)
	s.normalize(dst[:body], x[:body], w[:body], b[:body], mean, inverse)
	normalizeReference(dst[body:], x[body:], w[body:], b[body:], mean, inverse)
}

func scaleMulReference(dst, x, w []float32, scale float32) {
	for i, v := range x {
		dst[i] = float32(v*scale) * w[i]
	}
}

func normalizeReference(dst, x, w, b []float32, mean, scale float32) {
	for i, v := range x {
		dst[i] = FMA32(float32((v-mean)*scale), w[i], b[i])
	}
}

// checkLengths panics unless all are n, and n is not 0.
func checkLengths(operation string, n int, others ...int) {
	for _, o := range others {
		if o != n || n == 0 {
			panic(fmt.Sprintf("kernel: %s of lengths %d and %d", operation, n, o))
		}
	}
}
