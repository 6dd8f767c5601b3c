package kernel

import "fmt"

// Lanes is the number of rows interleaved in a group of a Matrix, and the width of every reduction.
const Lanes = 16

// Matrix is weights repacked for MatMul: rows in groups of 16, so that one SIMD lane is one row. A group is one
// contiguous stream, with its scales inline:
//
//	F32         for each column: 16 values
//	F16, BF16   for each column: 16 values
//	Q8_0        for each block of 32 columns: 16 scales; 8 x 64 bytes, value+128
//	Q4_0        for each block: 16 scales; 4 x 64 bytes
//	Q4_1        for each block: 16 scales; 16 minima; 4 x 64 bytes
//	Q5_0        for each block: 16 scales; 64 bytes of upper bits; 4 x 64 bytes
//	Q4_K        for each block of 256 columns: a head; 8 times 4 x 64 bytes
//	Q5_K        for each block of 256: a head; 8 times 64 bytes of upper bits and 4 x 64 bytes
//	Q6_K        for each block of 256: a head; 8 times 2 x 64 bytes of upper bits and 4 x 64 bytes
//
// In the j-th 64 bytes, bytes 4r..4r+3 are row r, columns 4j..4j+3; with nibbles, the high ones are 16 columns further.
// Bytes 4r..4r+3 of the upper bits belong to row r too. One bit to a value: bit k of byte i is column 4k+i. Two bits to a
// value: bits 2k and 2k+1 of byte i are column 4k+i of the first 16 columns, in the other 64 bytes of the last 16.
//
// A head is 320 bytes: 16 f16 scales; 16 f16 scales of the minima, negated (Q6_K: zeros); then for each 32 columns 16 byte
// scales and 16 byte minima (Q6_K: 16 scales of the first 16 columns and 16 of the last).
//
// Rows that fill the last group are zero, and MatMul does not write them.
//
// A Matrix is a small value over the caller's memory: copy it freely.
type Matrix struct {
	Format     Format
	Rows, Cols int
	data       []byte
}

// PackedSize is the memory, in bytes, of a Matrix.
func PackedSize(f Format, rows, cols int) int {
	return groups(rows) * f.groupBytes(cols)
}

// NewMatrix lays a Matrix over memory, which holds at least PackedSize bytes and should be aligned to 64. Pack fills it.
func NewMatrix(memory []byte, f Format, rows, cols int) Matrix {
	size := PackedSize(f, rows, cols)
	if rows <= 0 || !f.ValidCols(cols) || len(memory) < size {
		panic(fmt.Sprintf("kernel: matrix %v %dx%d in %d bytes", f, rows, cols, len(memory)))
	}
	return Matrix{f, rows, cols, memory[:size:size]}
}

// Groups is the number of groups of 16 rows, the last one perhaps not full.
func (m *Matrix) Groups() int { return groups(m.Rows) }

// Bytes is the memory the matrix takes.
func (m *Matrix) Bytes() int { return len(m.data) }

func groups(rows int) int { return (rows + Lanes - 1) / Lanes }

// groupBytes is the size of one group.
func (f Format) groupBytes(cols int) int { return f.steps(cols) * f.stepBytes() }

// steps is the number of records along k in a group: blocks, or single columns.
func (f Format) steps(cols int) int { return cols / f.blockSize() }

const (
	headBytes   = 320 // of a record of 256 columns
	headScales  = 64  // where the byte scales start
	scalesBytes = 32  // of 32 columns
)

// stepBytes is the size of a record.
func (f Format) stepBytes() int {
	if f.blockSize() == superBlock {
		return headBytes + superBlock/BlockSize*f.integerBytes()
	}
	return Lanes * f.blockBytes()
}

// integerBytes is the size of 32 columns' integers in a record of 256.
func (f Format) integerBytes() int {
	switch f {
	case Q5_K:
		return (1 + 4) * 64
	case Q6_K:
		return (2 + 4) * 64
	}
	return 4 * 64
}

// Pack repacks the groups [from, to) from GGUF rows. The sources are stacked: the first row of the second follows the
// last of the first, whatever their numbers; each holds whole rows, and together they hold exactly m.Rows. Several
// goroutines may pack ranges that do not overlap.
func (m *Matrix) Pack(from, to int, sources ...[]byte) {
	rowBytes := m.Format.RowBytes(m.Cols)
	total := 0
	for _, s := range sources {
		if len(s)%rowBytes != 0 {
			panic(fmt.Sprintf("kernel: pack %v: %d bytes are not whole rows of %d columns", m.Format, len(s), m.Cols))
		}
		total += len(s) / rowBytes
	}
	if total != m.Rows || from < 0 || to > m.Groups() {
		panic(fmt.Sprintf("kernel: pack %d rows into %d, groups %d to %d", total, m.Rows, from, to))
	}
	size := m.Format.groupBytes(m.Cols)
	for g := from; g < to; g++ {
		group := m.data[g*size:][:size]
		if (g+1)*Lanes > m.Rows {
			clear(group)
		}
		for r := range Lanes {
			if row := g*Lanes + r; row < m.Rows {
				packRow(m.Format, group, r, rowOf(sources, row*rowBytes, rowBytes))
			}
		}
	}
}

// rowOf gives the row that starts offset bytes into the stack of sources.
func rowOf(sources [][]byte, offset, rowBytes int) []byte {
	for _, s := range sources {
		if offset < len(s) {
			return s[offset:][:rowBytes]
		}
		offset -= len(s)
	}
	panic("kernel: no such row")
}
