package kernel

import (
	"fmt"
	"math"
)

// Format is how weights, keys or values are stored.
type Format uint8

const (
	F32  Format = iota
	F16         // IEEE binary16
	BF16        // the upper half of a float32
	Q8_0        // blocks of 32: f16 scale, 32 int8
	Q4_0        // blocks of 32: f16 scale, 32 nibbles less 8
	Q4_1        // blocks of 32: f16 scale, f16 minimum, 32 nibbles
	formats
)

// BlockSize is the number of values that share a scale, and the unit of quantised columns.
const BlockSize = 32

func (f Format) String() string {
	names := [...]string{"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"}
	if int(f) < len(names) {
		return names[f]
	}
	return fmt.Sprintf("Format(%d)", uint8(f))
}

// Quantized says whether products use int8 activations; the others use float32.
func (f Format) Quantized() bool { return f >= Q8_0 && f < formats }

// blockBytes is the size of one GGUF block, or of one value of the formats without blocks.
func (f Format) blockBytes() int {
	switch f {
	case F32:
		return 4
	case F16, BF16:
		return 2
	case Q8_0:
		return 2 + 32
	case Q4_0:
		return 2 + 16
	case Q4_1:
		return 4 + 16
	}
	panic("kernel: unknown format " + f.String())
}

// ValidCols says whether a row may have so many columns: whole blocks in the quantised formats.
func (f Format) ValidCols(cols int) bool {
	return cols > 0 && (!f.Quantized() || cols%BlockSize == 0)
}

// RowBytes is the size of a GGUF row of cols values.
func (f Format) RowBytes(cols int) int {
	if f.Quantized() {
		return cols / BlockSize * f.blockBytes()
	}
	return cols * f.blockBytes()
}

// Dequantize writes the values of one GGUF row, src, to dst. They are exact, except that Q4_1 rounds once.
func Dequantize(f Format, dst []float32, src []byte) {
	if !f.ValidCols(len(dst)) || len(src) != f.RowBytes(len(dst)) {
		panic(fmt.Sprintf("kernel: dequantize %d values of %v from %d bytes", len(dst), f, len(src)))
	}
	switch f {
	case F32:
		for i := range dst {
			dst[i] = f32At(src, i)
		}
	case F16:
		for i := range dst {
			dst[i] = halfToFloat(u16At(src, i))
		}
	case BF16:
		for i := range dst {
			dst[i] = brainToFloat(u16At(src, i))
		}
	case Q8_0:
		for ; len(dst) > 0; dst, src = dst[32:], src[34:] {
			d := halfToFloat(u16At(src, 0))
			for i, q := range src[2:34] {
				dst[i] = d * float32(int8(q))
			}
		}
	case Q4_0:
		for ; len(dst) > 0; dst, src = dst[32:], src[18:] {
			d := halfToFloat(u16At(src, 0))
			for i, q := range src[2:18] {
				dst[i] = d * float32(int(q&15)-8)
				dst[i+16] = d * float32(int(q>>4)-8)
			}
		}
	case Q4_1:
		for ; len(dst) > 0; dst, src = dst[32:], src[20:] {
			d, m := halfToFloat(u16At(src, 0)), halfToFloat(u16At(src, 1))
			for i, q := range src[4:20] {
				dst[i] = float32(d*float32(q&15)) + m
				dst[i+16] = float32(d*float32(q>>4)) + m
			}
		}
	}
}

func u16At(b []byte, i int) uint16 { return uint16(b[2*i]) | uint16(b[2*i+1])<<8 }

func putU16(b []byte, i int, v uint16) { b[2*i], b[2*i+1] = byte(v), byte(v>>8) }

func u32At(b []byte, i int) uint32 {
	b = b[4*i:][:4]
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func putU32(b []byte, i int, v uint32) {
	b = b[4*i:][:4]
	b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
}

func f32At(b []byte, i int) float32 { return math.Float32frombits(u32At(b, i)) }

func putF32(b []byte, i int, v float32) { putU32(b, i, math.Float32bits(v)) }
