package kernel

import (
	"fmt"
	"math"
	"unsafe"
)

// Activations are the right-hand side of products: tokens x cols, prepared for weights of one format. They are a view of
// the caller's memory: two workers that make the same view over the same memory share it.
//
// Tokens lie in panels of nearly equal width, at most the Set's, or 16 where it has tiles. A panel of n tokens holds, for quantised weights, one
// record for each block of 32 columns:
//
//	n x 32 int8     values, from -127 to 127
//	n x float32     d, the scale
//	n x float32     d * sum of the values, for formats with minima
//	n x int32       -8 * sum, the offset of Q4_0
//	n x int32       -16 * sum, the offset of Q5_0
//	n x int32       -128 * sum, the offset of Q8_0
//	n x int32       -32 * sum of the first 16 values, the offset of Q6_K
//	n x int32       -32 * sum of the last 16 values
//
// and for the other weights, for each column, n x float32.
type Activations struct {
	Tokens, Cols int
	quantized    bool
	panels       int
	data         []byte
}

const recordBytes = 32 + 7*4 // of a block and a token

// ActivationBytes is the memory that tokens x cols take for weights of format f.
func ActivationBytes(f Format, tokens, cols int) int {
	if f.Quantized() {
		return tokens * (cols / BlockSize) * recordBytes
	}
	return tokens * cols * 4
}

// Activations lays a view over memory, which holds at least ActivationBytes bytes and is aligned to 4, better 64.
func (s *Set) Activations(memory []byte, f Format, tokens, cols int) Activations {
	size := ActivationBytes(f, tokens, cols)
	if tokens <= 0 || !f.ValidCols(cols) || len(memory) < size {
		panic(fmt.Sprintf("kernel: activations %d x %d for %v in %d bytes", tokens, cols, f, len(memory)))
	}
	if uintptr(unsafe.Pointer(&memory[0]))%4 != 0 {
		panic("kernel: activations in memory that is not aligned")
	}
	return Activations{tokens, cols, f.Quantized(), s.panels(f, tokens), memory[:size:size]}
}

// panels is how many panels so many tokens make.
func (s *Set) panels(f Format, tokens int) int {
	width := s.width
	if s.tiled(f, tokens) {
		width = tiledWidth
	}
	return (tokens + width - 1) / width
}

// panelStart is the first token of panel p. The wider panels come first.
func (a *Activations) panelStart(p int) int { return p*(a.Tokens/a.panels) + min(p, a.widerPanels()) }

// widerPanels is how many panels have a token more than the others.
func (a *Activations) widerPanels() int { return a.Tokens % a.panels }

// panelOf is the panel that holds token t.
func (a *Activations) panelOf(t int) int {
	width, wider := a.Tokens/a.panels, a.widerPanels()
	if p := t / (width + 1); p < wider {
		return p
	}
	return (t - wider) / width
}

// panel gives panel p: its first token, its width, and its memory.
func (a *Activations) panel(p int) (first, n int, data []byte) {
	first, end := a.panelStart(p), a.panelStart(p+1)
	per := len(a.data) / a.Tokens
	return first, end - first, a.data[first*per : end*per]
}

// Quantize prepares the tokens [from, to): x[t*stride:] holds the values of token t, for every t of a.
func (s *Set) Quantize(a Activations, x []float32, stride, from, to int) {
	s.QuantizeColumns(a, x, stride, from, to, 0, a.Cols)
}

// QuantizeColumns prepares only the columns [c0, c1); both are multiples of 32, or the end.
func (s *Set) QuantizeColumns(a Activations, x []float32, stride, from, to, c0, c1 int) {
	if from < 0 || to > a.Tokens || c0 < 0 || c1 > a.Cols || c0%BlockSize != 0 || c1%BlockSize != 0 && c1 != a.Cols {
		panic(fmt.Sprintf("kernel: quantize tokens %d-%d, columns %d-%d of %d x %d", from, to, c0, c1, a.Tokens, a.Cols))
	}
	if from >= to || c0 >= c1 {
		return
	}
	for t := from; t < to; t++ {
		first, n, data := a.panel(a.panelOf(t))
		values := x[t*stride:][:a.Cols][c0:c1]
		if a.quantized {
			s.quantize(data[c0/BlockSize*recordBytes*n:], values, n, t-first)
		} else {
			interleave(data[c0*4*n:], values, n, t-first)
		}
	}
}

// interleave writes x as token t of a panel of n.
func interleave(dst []byte, x []float32, n, t int) {
	if n == 1 {
		copy(floats(dst), x)
		return
	}
	d := floats(dst)[t:]
	for i, v := range x {
		d[i*n] = v
	}
}

// quantizeReference writes the blocks of x as token t of a panel of n.
//
// A block of nothing but tiny values (below 2^-100, so that 127/amax stays finite) becomes zeros. One with an infinity or a NaN becomes
// zeros with that scale, so that every output it reaches is a NaN.
func quantizeReference(dst []byte, x []float32, n, t int) {
	for ; len(x) > 0; x, dst = x[BlockSize:], dst[recordBytes*n:] {
		var bits uint32 // of the largest magnitude; as integers, so that NaN is above Inf
		for _, v := range x[:BlockSize] {
			bits = max(bits, math.Float32bits(v)&^(1<<31))
		}
		largest := math.Float32frombits(bits)
		d := largest / 127
		var sums [2]int32
		if bits >= quantizeTiny && bits < quantizeInf {
			inverse := 127 / largest
			for i, v := range x[:BlockSize] {
				q := int32(math.RoundToEven(float64(float32(v * inverse))))
				dst[BlockSize*t+i] = byte(q)
				sums[i/16] += q
			}
		} else {
			clear(dst[BlockSize*t:][:BlockSize])
		}
		sum := sums[0] + sums[1]
		scales := dst[BlockSize*n:]
		putF32(scales, t, d)
		putF32(scales, n+t, d*float32(sum))
		putU32(scales, 2*n+t, uint32(-8*sum))
		putU32(scales, 3*n+t, uint32(-16*sum))
		putU32(scales, 4*n+t, uint32(-128*sum))
		putU32(scales, 5*n+t, uint32(-32*sums[0]))
		putU32(scales, 6*n+t, uint32(-32*sums[1]))
	}
}

const (
	quantizeTiny = (127 - 100) << 23 // 2^-100
	quantizeInf  = 0x7f800000
)

// floats views bytes as float32; the memory is aligned to 4.
func floats(b []byte) []float32 {
	if len(b) < 4 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), len(b)/4)
}

// Aligned is n zeroed bytes of Go memory on a cache line's boundary: good for activations and pages. Weights, which
// are large and live long, belong outside the Go heap.
func Aligned(n int) []byte {
	const line = 64
	b := make([]byte, n+line-1)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (line - 1))
	return b[skip : skip+n : skip+n]
}
