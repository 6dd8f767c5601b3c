//go:build !purego

package kernel

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

//go:generate go run ./gen

const (
	isaAVX2    isa = 1 + iota // with FMA and F16C
	isaAVXVNNI                // AVX2 and VPDPBUSD in its VEX form
	isaAVX512                 // F, BW, DQ, VL, VNNI
)

// architectureSets are those this CPU, and the operating system under it, can run.
func architectureSets() []*Set {
	var sets []*Set
	x := &cpu.X86
	if x.HasAVX2 && x.HasFMA && x.HasF16C {
		sets = append(sets, &Set{Name: "avx2", isa: isaAVX2, width: widthAVX2})
		if x.HasAVXVNNI {
			sets = append(sets, &Set{Name: "avxvnni", isa: isaAVXVNNI, width: widthAVXVNNI})
		}
		if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX512VNNI {
			sets = append(sets, &Set{Name: "avx512", isa: isaAVX512, width: widthAVX512})
			if x.HasAMXTile && x.HasAMXInt8 && mayUseTiles() {
				sets = append(sets, &Set{Name: "amx", isa: isaAVX512, width: widthAVX512, tiles: true})
			}
		}
	}
	return sets
}

// prefetchAhead is how far ahead a matrix-vector product asks for weights, in bytes: the memory's latency times the bandwidth
// that one core gets. Measured on a Xeon with tiles, whose cores get 19 GB/s, and on a Zen 5, whose cores get 43.
func prefetchAhead() int {
	if cpu.X86.HasAMXTile {
		return 2 << 10
	}
	return 8 << 10
}

func pause() { pauseAMD64() }

// The methods below call assembly, on whole vectors of 16. None is a leaf, so each checks the stack when it begins: that
// is where the runtime stops a goroutine which does nothing but run kernels.

// at is the address that assembly wants; of an empty slice too.
func at[T any](s []T) *T { return unsafe.SliceData(s) }

//go:noinline
func (s *Set) quantize(dst []byte, x []float32, n, t int) {
	blocks := len(x) / BlockSize
	_ = dst[:blocks*recordBytes*n]
	switch s.isa {
	case isaAVX512:
		quantizeAVX512(at(dst), at(x), blocks, n, t)
	case isaAVX2, isaAVXVNNI:
		quantizeAVX2(at(dst), at(x), blocks, n, t)
	default:
		quantizeReference(dst, x, n, t)
	}
}

//go:noinline
func (s *Set) product(f Format, w, x []byte, n int, out []float32, stride, cols, groups int) {
	steps := f.steps(cols)
	_ = w[:groups*f.groupBytes(cols)]
	_ = out[:(n-1)*stride+groups*Lanes]
	switch {
	case s.isa == isaAVX512:
		productAVX512(f, n, at(w), at(x), at(out), 4*stride, steps, groups, s.ahead)
	case s.isa == isaAVXVNNI && f.Quantized():
		productAVXVNNI(f, n, at(w), at(x), at(out), 4*stride, steps, groups, s.ahead)
	case s.isa == isaAVX2 || s.isa == isaAVXVNNI:
		productAVX2(f, n, at(w), at(x), at(out), 4*stride, steps, groups, s.ahead)
	default:
		productReference(f, w, x, n, out, stride, cols, groups)
	}
}

func (s *Set) sum(acc *lanes, x []float32) {
	switch s.isa {
	case isaAVX512:
		sumAVX512(&acc[0], at(x), len(x))
	case isaAVX2, isaAVXVNNI:
		sumAVX2(&acc[0], at(x), len(x))
	default:
		sumReference(acc, x)
	}
}

func (s *Set) sumSquares(acc *lanes, x []float32) {
	switch s.isa {
	case isaAVX512:
		sumSquaresAVX512(&acc[0], at(x), len(x))
	case isaAVX2, isaAVXVNNI:
		sumSquaresAVX2(&acc[0], at(x), len(x))
	default:
		sumSquaresReference(acc, x)
	}
}

func (s *Set) sumDeviations(acc *lanes, x []float32, mean float32) {
	switch s.isa {
	case isaAVX512:
		sumDeviationsAVX512(&acc[0], at(x), len(x), mean)
	case isaAVX2, isaAVXVNNI:
		sumDeviationsAVX2(&acc[0], at(x), len(x), mean)
	default:
		sumDeviationsReference(acc, x, mean)
	}
}

func (s *Set) max(acc *lanes, x []float32) {
	switch s.isa {
	case isaAVX512:
		maxAVX512(&acc[0], at(x), len(x))
	case isaAVX2, isaAVXVNNI:
		maxAVX2(&acc[0], at(x), len(x))
	default:
		maxReference(acc, x)
	}
}

func (s *Set) find(x []float32, value float32) int {
	switch s.isa {
	case isaAVX512:
		return findAVX512(at(x), len(x), value)
	case isaAVX2, isaAVXVNNI:
		return findAVX2(at(x), len(x), value)
	}
	return findReference(x, value)
}

func (s *Set) expAdd(acc *lanes, dst, x []float32, shift, scale float32) {
	switch s.isa {
	case isaAVX512:
		expAddAVX512(&acc[0], at(dst), at(x), len(x), shift, scale)
	case isaAVX2, isaAVXVNNI:
		expAddAVX2(&acc[0], at(dst), at(x), len(x), shift, scale)
	default:
		expAddReference(acc, dst, x, shift, scale)
	}
}

func (s *Set) largestBits(x []float32) uint32 {
	switch s.isa {
	case isaAVX512:
		return uint32(largestBitsAVX512(at(x), len(x)))
	case isaAVX2, isaAVXVNNI:
		return uint32(largestBitsAVX2(at(x), len(x)))
	}
	return largestBitsReference(x)
}

func (s *Set) above(indices []int32, x []float32, least float32) int {
	switch s.isa {
	case isaAVX512:
		return aboveAVX512(at(indices), at(x), len(x), least)
	case isaAVX2, isaAVXVNNI:
		return aboveAVX2(at(indices), at(x), len(x), least)
	}
	return aboveReference(indices, x, least)
}

func (s *Set) scaleMul(dst, x, w []float32, scale float32) {
	switch s.isa {
	case isaAVX512:
		scaleMulAVX512(at(dst), at(x), at(w), len(x), scale)
	case isaAVX2, isaAVXVNNI:
		scaleMulAVX2(at(dst), at(x), at(w), len(x), scale)
	default:
		scaleMulReference(dst, x, w, scale)
	}
}

func (s *Set) normalize(dst, x, w, b []float32, mean, scale float32) {
	switch s.isa {
	case isaAVX512:
		normalizeAVX512(at(dst), at(x), at(w), at(b), len(x), mean, scale)
	case isaAVX2, isaAVXVNNI:
		normalizeAVX2(at(dst), at(x), at(w), at(b), len(x), mean, scale)
	default:
		normalizeReference(dst, x, w, b, mean, scale)
	}
}

func (s *Set) add(dst, x []float32) {
	switch s.isa {
	case isaAVX512:
		addAVX512(at(dst), at(x), len(x))
	case isaAVX2, isaAVXVNNI:
		addAVX2(at(dst), at(x), len(x))
	default:
		addReference(dst, x)
	}
}

func (s *Set) mul(dst, x []float32) {
	switch s.isa {
	case isaAVX512:
		mulAVX512(at(dst), at(x), len(x))
	case isaAVX2, isaAVXVNNI:
		mulAVX2(at(dst), at(x), len(x))
	default:
		mulReference(dst, x)
	}
}

func (s *Set) scale(x []float32, factor float32) {
	switch s.isa {
	case isaAVX512:
		scaleAVX512(at(x), len(x), factor)
	case isaAVX2, isaAVXVNNI:
		scaleAVX2(at(x), len(x), factor)
	default:
		scaleReference(x, factor)
	}
}

func (s *Set) addScaled(dst, x []float32, factor float32) {
	switch s.isa {
	case isaAVX512:
		addScaledAVX512(at(dst), at(x), len(x), factor)
	case isaAVX2, isaAVXVNNI:
		addScaledAVX2(at(dst), at(x), len(x), factor)
	default:
		addScaledReference(dst, x, factor)
	}
}

func (s *Set) swiGLU(dst, gate, up []float32) {
	switch s.isa {
	case isaAVX512:
		swiGLUAVX512(at(dst), at(gate), at(up), len(dst))
	case isaAVX2, isaAVXVNNI:
		swiGLUAVX2(at(dst), at(gate), at(up), len(dst))
	default:
		swiGLUReference(dst, gate, up)
	}
}

func (s *Set) gelu(dst, x []float32) {
	switch s.isa {
	case isaAVX512:
		geluAVX512(at(dst), at(x), len(x))
	case isaAVX2, isaAVXVNNI:
		geluAVX2(at(dst), at(x), len(x))
	default:
		geluReference(dst, x)
	}
}

func (s *Set) geluErf(dst, x []float32) {
	switch s.isa {
	case isaAVX512:
		geluErfAVX512(at(dst), at(x), len(x))
	case isaAVX2, isaAVXVNNI:
		geluErfAVX2(at(dst), at(x), len(x))
	default:
		geluErfReference(dst, x)
	}
}

func (s *Set) softCap(x []float32, limit float32) {
	switch s.isa {
	case isaAVX512:
		softCapAVX512(at(x), len(x), limit)
	case isaAVX2, isaAVXVNNI:
		softCapAVX2(at(x), len(x), limit)
	default:
		softCapReference(x, limit)
	}
}

func (s *Set) rotateHalves(a, b, cos, sin []float32) {
	switch s.isa {
	case isaAVX512:
		rotateHalvesAVX512(at(a), at(b), at(cos), at(sin), len(a))
	case isaAVX2, isaAVXVNNI:
		rotateHalvesAVX2(at(a), at(b), at(cos), at(sin), len(a))
	default:
		rotateHalvesReference(a, b, cos, sin)
	}
}

func (s *Set) rotatePairs(x, cos, sin []float32) {
	switch s.isa {
	case isaAVX512:
		rotatePairsAVX512(at(x), at(cos), at(sin), len(x))
	case isaAVX2, isaAVXVNNI:
		rotatePairsAVX2(at(x), at(cos), at(sin), len(x))
	default:
		rotatePairsReference(x, cos, sin)
	}
}

func (s *Set) toHalves(dst []uint16, src []float32) {
	switch s.isa {
	case isaAVX512:
		toHalvesAVX512(at(dst), at(src), len(src))
	case isaAVX2, isaAVXVNNI:
		toHalvesAVX2(at(dst), at(src), len(src))
	default:
		toHalvesReference(dst, src)
	}
}

func (s *Set) fromHalves(dst []float32, src []uint16) {
	switch s.isa {
	case isaAVX512:
		fromHalvesAVX512(at(dst), at(src), len(src))
	case isaAVX2, isaAVXVNNI:
		fromHalvesAVX2(at(dst), at(src), len(src))
	default:
		fromHalvesReference(dst, src)
	}
}
