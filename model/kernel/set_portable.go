//go:build !amd64 || purego

package kernel

// Without assembly there is the reference alone.

func architectureSets() []*Set { return nil }

// prefetchAhead is of no use to the reference.
func prefetchAhead() int { return 0 }

func pause() {}

func (s *Set) quantize(dst []byte, x []float32, n, t int) { quantizeReference(dst, x, n, t) }

func (s *Set) product(f Format, w, x []byte, n int, out []float32, stride, cols, groups int) {
	productReference(f, w, x, n, out, stride, cols, groups)
}

// No set has tiles.
func (s *Set) multiplyTiles([]float32, int, Matrix, int, int, Activations, int, int) {}

func (s *Set) sum(acc *lanes, x []float32)        { sumReference(acc, x) }
func (s *Set) sumSquares(acc *lanes, x []float32) { sumSquaresReference(acc, x) }
func (s *Set) sumDeviations(acc *lanes, x []float32, mean float32) {
	sumDeviationsReference(acc, x, mean)
}
func (s *Set) max(acc *lanes, x []float32)         { maxReference(acc, x) }
func (s *Set) find(x []float32, value float32) int { return findReference(x, value) }
func (s *Set) expAdd(acc *lanes, dst, x []float32, shift, scale float32) {
	expAddReference(acc, dst, x, shift, scale)
}
func (s *Set) largestBits(x []float32) uint32 { return largestBitsReference(x) }
func (s *Set) above(indices []int32, x []float32, least float32) int {
	return aboveReference(indices, x, least)
}

func (s *Set) scaleMul(dst, x, w []float32, scale float32) { scaleMulReference(dst, x, w, scale) }
func (s *Set) normalize(dst, x, w, b []float32, mean, scale float32) {
	normalizeReference(dst, x, w, b, mean, scale)
}

func (s *Set) add(dst, x []float32)                       { addReference(dst, x) }
func (s *Set) mul(dst, x []float32)                       { mulReference(dst, x) }
func (s *Set) scale(x []float32, factor float32)          { scaleReference(x, factor) }
func (s *Set) addScaled(dst, x []float32, factor float32) { addScaledReference(dst, x, factor) }
func (s *Set) swiGLU(dst, gate, up []float32)             { swiGLUReference(dst, gate, up) }
func (s *Set) gelu(dst, x []float32)                      { geluReference(dst, x) }
func (s *Set) geluErf(dst, x []float32)                   { geluErfReference(dst, x) }
func (s *Set) softCap(x []float32, limit float32)         { softCapReference(x, limit) }

func (s *Set) rotateHalves(a, b, cos, sin []float32) { rotateHalvesReference(a, b, cos, sin) }
func (s *Set) rotatePairs(x, cos, sin []float32)     { rotatePairsReference(x, cos, sin) }

func (s *Set) toHalves(dst []uint16, src []float32)   { toHalvesReference(dst, src) }
func (s *Set) fromHalves(dst []float32, src []uint16) { fromHalvesReference(dst, src) }

func (s *Set) scores(f Format, scores, q []float32, keys []byte, dim, n int, scale float32) {
	scoresReference(f, scores, q, keys, dim, n, scale)
}
func (s *Set) softmaxTile(scores []float32, weights []weight) { softmaxTileReference(scores, weights) }
func (s *Set) values(f Format, out, weights []float32, values, next []byte, from, to, width, n int) {
	valuesReference(f, out, weights, values, from, to, width, n)
}
func (s *Set) merge(total, part []float32, weights, parts []weight) {
	mergeReference(total, part, weights, parts)
}
