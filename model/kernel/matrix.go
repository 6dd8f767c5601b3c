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
//
// In the j-th 64 bytes, bytes 4r..4r+3 are row r, columns 4j..4j+3; with nibbles, the high ones are 16 columns further.
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
func (f Format) steps(cols int) int {
	if f.Quantized() {
		return cols / BlockSize
	}
	return cols
}

// stepBytes is the size of a record.
func (f Format) stepBytes() int { return Lanes * f.blockBytes() }

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

// packRow writes one GGUF row to lane r of its group.
func packRow(f Format, group []byte, r int, row []byte) {
	block, step := f.blockBytes(), f.stepBytes()
	for ; len(row) > 0; row, group = row[block:], group[step:] {
		switch f {
		case F32:
			putU32(group, r, u32At(row, 0))
		case F16, BF16:
			putU16(group, r, u16At(row, 0))
		case Q8_0:
			putU16(group, r, u16At(row, 0))
			packQuads(group[32:], r, row[2:34], 0x80808080)
		case Q4_0:
			putU16(group, r, u16At(row, 0))
			packQuads(group[32:], r, row[2:18], 0)
		case Q4_1:
			putU16(group, r, u16At(row, 0))
			putU16(group, Lanes+r, u16At(row, 1))
			packQuads(group[64:], r, row[4:20], 0)
		}
	}
}

// packQuads spreads the bytes of src, by fours, over lane r of as many vectors; flip is applied to each four.
func packQuads(dst []byte, r int, src []byte, flip uint32) {
	for j := range len(src) / 4 {
		putU32(dst, Lanes*j+r, u32At(src, j)^flip)
	}
}
