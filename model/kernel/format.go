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
	Q5_0        // blocks of 32: f16 scale, 32 integers of 5 bits less 16
	Q4_K        // blocks of 256: f16 scales of eight 6-bit scales and 6-bit minima, each for 32 nibbles
	Q5_K        // blocks of 256: like Q4_K, with integers of 5 bits
	Q6_K        // blocks of 256: f16 scale of sixteen int8 scales, each for 16 integers of 6 bits less 32
	formats
)

const (
	// BlockSize is the number of activations that share a scale.
	BlockSize = 32

	superBlock = 256 // columns of a block of the formats whose scales have a scale
)

// String is the format's name in ggml, in lower case.
func (f Format) String() string {
	names := [...]string{"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q4_k", "q5_k", "q6_k"}
	if int(f) < len(names) {
		return names[f]
	}
	return fmt.Sprintf("Format(%d)", uint8(f))
}

// Quantized says whether products use int8 activations; the others use float32.
func (f Format) Quantized() bool { return f >= Q8_0 && f < formats }

// blockSize is the number of values in a GGUF block; 1 in the formats without blocks.
func (f Format) blockSize() int {
	switch f {
	case F32, F16, BF16:
		return 1
	case Q4_K, Q5_K, Q6_K:
		return superBlock
	}
	return BlockSize
}

// blockBytes is the size of one GGUF block.
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
	case Q5_0:
		return 2 + 4 + 16
	case Q4_K:
		return 4 + 12 + 128
	case Q5_K:
		return 4 + 12 + 32 + 128
	case Q6_K:
		return 128 + 64 + 16 + 2
	}
	panic("kernel: unknown format " + f.String())
}

// ValidCols says whether a row may have so many columns: whole blocks.
func (f Format) ValidCols(cols int) bool { return cols > 0 && cols%f.blockSize() == 0 }

// RowBytes is the size of a GGUF row of cols values.
func (f Format) RowBytes(cols int) int { return cols / f.blockSize() * f.blockBytes() }

func u16At(b []byte, i int) uint16 { return uint16(b[2*i]) | uint16(b[2*i+1])<<8 }

func putU16(b []byte, i int, v uint16) { b[2*i], b[2*i+1] = byte(v), byte(v>>8) }

func u32At(b []byte, i int) uint32 {
	b = b[4*i:][:4]
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func u64At(b []byte, i int) uint64 {
	b = b[8*i:][:8]
	return uint64(u32At(b, 0)) | uint64(u32At(b, 1))<<32
}

func putU32(b []byte, i int, v uint32) {
	b = b[4*i:][:4]
	b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
}

func f32At(b []byte, i int) float32 { return math.Float32frombits(u32At(b, i)) }

func putF32(b []byte, i int, v float32) { putU32(b, i, math.Float32bits(v)) }
