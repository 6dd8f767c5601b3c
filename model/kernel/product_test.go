package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

var allFormats = []Format{F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q4_K, Q5_K, Q6_K}

// wholeBlocks is cols, or a few more, that make whole blocks.
func wholeBlocks(f Format, cols int) int {
	size := f.blockSize()
	return (cols + size - 1) / size * size
}

// halfOffsets are where a GGUF block of an integer format has its f16 scale, and that of its minima.
func halfOffsets(f Format) []int {
	switch f {
	case Q4_1, Q4_K, Q5_K:
		return []int{0, 2}
	case Q6_K:
		return []int{208}
	}
	return []int{0}
}

// ordinaryRows are GGUF rows whose values are like those of a model.
func ordinaryRows(r *rand.Rand, f Format, rows, cols int) []byte {
	b := make([]byte, rows*f.RowBytes(cols))
	switch f {
	case F32:
		for i := range rows * cols {
			putF32(b, i, float32(r.NormFloat64()))
		}
	case F16:
		for i := range rows * cols {
			putU16(b, i, floatToHalf(float32(r.NormFloat64())))
		}
	case BF16:
		for i := range rows * cols {
			putU16(b, i, uint16(math.Float32bits(float32(r.NormFloat64()))>>16))
		}
	default:
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		for o := 0; o < len(b); o += f.blockBytes() {
			for i, at := range halfOffsets(f) {
				putU16(b[o+at:], 0, floatToHalf(float32(r.NormFloat64()*[]float64{0.01, 0.05}[i])))
			}
		}
	}
	return b
}

// extremeRows have the integers at the ends of their range, -128 included, and any scale.
func extremeRows(r *rand.Rand, f Format, rows, cols int) []byte {
	b := make([]byte, rows*f.RowBytes(cols))
	ends := []byte{0x80, 0x81, 0x7f, 0xff, 0x00}
	for i := range b {
		b[i] = byte(r.Uint32())
		if f.Quantized() {
			b[i] = ends[r.IntN(len(ends))]
			if i/f.blockBytes()%3 == 0 { // blocks of one value: the largest sums
				b[i] = ends[i/f.blockBytes()%len(ends)]
			}
		}
	}
	if f.Quantized() && r.IntN(2) == 0 { // finite scales, or every result is a NaN soon
		for o := 0; o < len(b); o += f.blockBytes() {
			for _, at := range halfOffsets(f) {
				b[o+at+1] &^= 0x40
			}
		}
	}
	return b
}

// saturating are activations that all quantise to 127 or -127, in long runs of one sign.
func saturating(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = 3
		if i/32%2 == 1 && r.IntN(2) == 0 || i/32%4 == 2 {
			x[i] = -3
		}
	}
	return x
}

// TestProductsMatchReference compares every Set with the reference. The reference takes tokens one at a time, so this also
// says that a matrix-matrix product is so many matrix-vector products.
func TestProductsMatchReference(t *testing.T) {
	shapes := []struct{ rows, cols int }{{1, 32}, {15, 64}, {16, 96}, {17, 32}, {48, 64}, {70, 576}, {130, 96}, {33, 1600}}
	floatShapes := append(shapes, []struct{ rows, cols int }{{1, 1}, {17, 3}, {64, 33}, {81, 7}}...)
	for _, f := range allFormats {
		t.Run(f.String(), func(t *testing.T) {
			r := newRandom(uint64(f))
			list := shapes
			if !f.Quantized() {
				list = floatShapes
			}
			for _, sh := range list {
				if f.blockSize() == superBlock { // as many blocks of 32, but for the longest
					sh.cols = min(8*sh.cols, 1536)
				}
				for kind := range 3 {
					rows, values := ordinaryRows, gaussian
					switch kind {
					case 1:
						rows, values = extremeRows, saturating
					case 2:
						values = peculiar
					}
					src := rows(r, f, sh.rows, sh.cols)
					m := NewMatrix(Aligned(PackedSize(f, sh.rows, sh.cols)), f, sh.rows, sh.cols)
					m.Pack(0, m.Groups(), src)
					most := 46
					if sh.rows*sh.cols <= 48*64 || f.blockSize() == superBlock && sh.cols == 256 {
						most = 64
					}
					x := values(r, most*sh.cols)
					want := make([]float32, most*sh.rows)
					for tok := range most {
						multiply(reference(), want[tok*sh.rows:][:sh.rows], m, x[tok*sh.cols:], 1)
					}
					for _, s := range Sets() {
						for _, tokens := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 31, 32, 33, 37, 41, 46, 64} {
							if s.isa == isaReference && tokens != 5 || tokens > most {
								continue
							}
							got := make([]float32, tokens*sh.rows)
							multiply(s, got, m, x, tokens)
							checkBits(t, fmt.Sprintf("%s, %dx%d, %d tokens, kind %d", s.Name, sh.rows, sh.cols, tokens, kind), got, want[:len(got)])
						}
					}
				}
			}
		})
	}
}

// TestProductsAgainstFloat64 compares the reference with the plain sum over dequantised weights.
func TestProductsAgainstFloat64(t *testing.T) {
	const rows, cols, tokens = 20, 256, 3
	for _, f := range allFormats {
		r := newRandom(7)
		src := ordinaryRows(r, f, rows, cols)
		m := NewMatrix(Aligned(PackedSize(f, rows, cols)), f, rows, cols)
		m.Pack(0, m.Groups(), src)
		x := gaussian(r, tokens*cols)
		got := make([]float32, tokens*rows)
		multiply(reference(), got, m, x, tokens)
		var errors, sizes float64
		row := make([]float32, cols)
		for i := range rows {
			Dequantize(f, row, src[i*f.RowBytes(cols):][:f.RowBytes(cols)])
			for tok := range tokens {
				want := 0.0
				for k, w := range row {
					want += float64(w) * float64(x[tok*cols+k])
				}
				errors += (want - float64(got[tok*rows+i])) * (want - float64(got[tok*rows+i]))
				sizes += want * want
			}
		}
		limit := 1e-6
		if f.Quantized() {
			limit = 0.02
		}
		if e := math.Sqrt(errors / sizes); e > limit {
			t.Errorf("%v: relative error %g", f, e)
		}
	}
}

// TestQuantizeMatchesReference compares the bytes of the activations.
func TestQuantizeMatchesReference(t *testing.T) {
	r := newRandom(5)
	for _, s := range fastSets() {
		for _, n := range []int{1, 2, 5, 12} {
			for trial := range 20 {
				x := gaussian(r, 32*9)
				switch trial % 4 {
				case 1:
					x = peculiar(r, len(x))
				case 2:
					for i := range x { // exact halves, to round to even
						x[i] = float32(r.IntN(255)-127) / 2
					}
				case 3:
					for i := range x { // around the smallest block that is not zero
						x[i] = float32(r.NormFloat64()) * 7.8886090e-31
					}
				}
				got, want := Aligned(9*recordBytes*n), Aligned(9*recordBytes*n)
				for tok := range n {
					s.quantize(got, x, n, tok)
					quantizeReference(want, x, n, tok)
				}
				for i := range got {
					if got[i] == want[i] {
						continue
					}
					if o := i % (recordBytes * n); o >= 32*n && o < 40*n { // a scale: any NaN will do
						g, w := f32At(got, i/4), f32At(want, i/4)
						if g != g && w != w {
							continue
						}
					}
					t.Fatalf("%s, panel of %d, trial %d: byte %d of a record is %d, want %d", s.Name, n, trial, i%(recordBytes*n), got[i], want[i])
				}
			}
		}
	}
}

// TestNonFiniteActivationsPoison makes sure that an infinity is not quantised away.
func TestNonFiniteActivationsPoison(t *testing.T) {
	for _, s := range Sets() {
		for _, f := range allFormats {
			if !f.Quantized() {
				continue
			}
			cols := wholeBlocks(f, 64)
			for _, bad := range []float32{infinity, -infinity, float32(math.NaN())} {
				m := NewMatrix(Aligned(PackedSize(f, 16, cols)), f, 16, cols)
				m.Pack(0, 1, ordinaryRows(newRandom(1), f, 16, cols))
				x := make([]float32, cols)
				x[40] = bad
				out := make([]float32, 16)
				multiply(s, out, m, x, 1)
				for i, v := range out {
					if v == v {
						t.Fatalf("%s, %v: row %d is %g for an activation of %g", s.Name, f, i, v, bad)
					}
				}
			}
		}
	}
}

// TestSplitsDoNotMatter packs from stacked sources in parts, quantises columns and tokens in parts, and multiplies in parts:
// nothing may change.
func TestSplitsDoNotMatter(t *testing.T) {
	const tokens = 37
	for _, f := range allFormats {
		r := newRandom(9)
		cols := wholeBlocks(f, 160)
		if f.blockSize() == superBlock {
			cols *= 2
		}
		parts := []int{5, 40, 3, 16, 7}
		var sources [][]byte
		var src []byte
		rows := 0
		for _, n := range parts {
			b := ordinaryRows(r, f, n, cols)
			sources, src, rows = append(sources, b), append(src, b...), rows+n
		}
		whole := NewMatrix(Aligned(PackedSize(f, rows, cols)), f, rows, cols)
		whole.Pack(0, whole.Groups(), src)
		x := gaussian(r, tokens*cols)
		for _, s := range Sets() {
			want := make([]float32, tokens*rows)
			multiply(s, want, whole, x, tokens)

			m := NewMatrix(Aligned(PackedSize(f, rows, cols)), f, rows, cols)
			for g := m.Groups(); g > 0; g-- {
				m.Pack(g-1, g, sources...)
			}
			memory := Aligned(ActivationBytes(f, tokens, cols))
			const workers = 4
			for w := range workers {
				a := s.Activations(memory, f, tokens, cols)
				from, to := tokens*w/workers, tokens*(w+1)/workers
				s.QuantizeColumns(a, x, cols, from, to, 96, cols)
				s.QuantizeColumns(a, x, cols, from, to, 0, 96)
			}
			const stride = 80
			got := make([]float32, tokens*stride)
			for i := range got {
				got[i] = -99
			}
			a := s.Activations(memory, f, tokens, cols)
			for w := range workers {
				from, to := a.Share(w, workers)
				for g := range m.Groups() {
					s.MatMul(got, stride, m, g, g+1, a, from, to)
				}
			}
			for tok := range tokens {
				line := got[tok*stride:][:stride]
				checkBits(t, fmt.Sprintf("%s, %v, token %d", s.Name, f, tok), line[:rows], want[tok*rows:][:rows])
				for _, v := range line[rows:] {
					if v != -99 {
						t.Fatalf("%s, %v: wrote beyond the rows", s.Name, f)
					}
				}
			}
		}
	}
}

// TestManyTokens has more panels than one call of the assembly takes, of two widths.
func TestManyTokens(t *testing.T) {
	const rows, cols, tokens = 17, 64, 2111
	for _, f := range []Format{Q8_0, Q4_1, F32} {
		r := newRandom(11)
		m := NewMatrix(Aligned(PackedSize(f, rows, cols)), f, rows, cols)
		m.Pack(0, m.Groups(), ordinaryRows(r, f, rows, cols))
		x := gaussian(r, tokens*cols)
		want, got := make([]float32, tokens*rows), make([]float32, tokens*rows)
		multiply(reference(), want, m, x, tokens)
		for _, s := range fastSets() {
			multiply(s, got, m, x, tokens)
			checkBits(t, fmt.Sprintf("%s, %v", s.Name, f), got, want)
		}
	}
}

// TestProductsSurviveInterruption multiplies on more goroutines than there are cores while others collect garbage, which
// signals threads in the middle of a product and moves stacks: no register and no buffer may suffer.
func TestProductsSurviveInterruption(t *testing.T) {
	const rows, cols, tokens, goroutines, rounds = 100, 1600, 70, 8, 20
	r := newRandom(12)
	m := NewMatrix(Aligned(PackedSize(Q4_0, rows, cols)), Q4_0, rows, cols)
	m.Pack(0, m.Groups(), ordinaryRows(r, Q4_0, rows, cols))
	x := gaussian(r, tokens*cols)
	want := make([]float32, tokens*rows)
	multiply(reference(), want, m, x, tokens)
	for _, s := range fastSets() {
		var products, collector sync.WaitGroup
		var done atomic.Bool
		collector.Go(func() {
			for !done.Load() {
				runtime.GC()
			}
		})
		wrong := make([]int, goroutines) // values
		for g := range goroutines {
			products.Go(func() {
				got := make([]float32, tokens*rows)
				for range rounds {
					clear(got)
					multiply(s, got, m, x, tokens)
					for i, v := range got {
						if v != want[i] {
							wrong[g]++
						}
					}
				}
			})
		}
		products.Wait()
		done.Store(true)
		collector.Wait()
		for g, n := range wrong {
			if n != 0 {
				t.Errorf("%s: %d values of goroutine %d are wrong", s.Name, n, g)
			}
		}
	}
}

// TestPackLayout checks one value of each format at a place counted by hand.
func TestPackLayout(t *testing.T) {
	const rows, row, col = 33, 21, 50 // group 1, lane 5; block 1, value 18
	for _, f := range allFormats {
		cols := wholeBlocks(f, 64)
		src := make([]byte, rows*f.RowBytes(cols))
		at := row * f.RowBytes(cols)
		m := NewMatrix(make([]byte, PackedSize(f, rows, cols)), f, rows, cols)
		group := PackedSize(f, 16, cols)
		switch f {
		case F32:
			binary.LittleEndian.PutUint32(src[at+4*col:], 0x11223344)
			m.Pack(0, 3, src)
			if got := binary.LittleEndian.Uint32(m.data[group+(col*16+5)*4:]); got != 0x11223344 {
				t.Errorf("f32: %x", got)
			}
		case F16, BF16:
			binary.LittleEndian.PutUint16(src[at+2*col:], 0x1122)
			m.Pack(0, 3, src)
			if got := binary.LittleEndian.Uint16(m.data[group+(col*16+5)*2:]); got != 0x1122 {
				t.Errorf("%v: %x", f, got)
			}
		case Q8_0:
			src[at+34+2+18] = 0xf0 // -16
			m.Pack(0, 3, src)
			if got := m.data[group+544+32+4*64+5*4+2]; got != 128-16 {
				t.Errorf("q8_0: %d", got)
			}
		case Q4_0, Q4_1:
			head := f.blockBytes() - 16
			src[at+f.blockBytes()+head+2] = 0xa0 // values 2 and 18
			m.Pack(0, 3, src)
			if got := m.data[group+16*f.blockBytes()+16*head+5*4+2]; got != 0xa0 {
				t.Errorf("%v: %x", f, got)
			}
		case Q5_0:
			block := src[at+22:]
			block[2+2] = 1 << 2 // the upper bit of value 18
			block[6+2] = 0xa0   // values 2 and 18
			m.Pack(0, 3, src)
			record := m.data[group+352:]
			if got := record[32+5*4+2]; got != 1<<4 {
				t.Errorf("q5_0: upper bits %x", got)
			}
			if got := record[96+5*4+2]; got != 0xa0 {
				t.Errorf("q5_0: %x", got)
			}
		case Q4_K:
			src[at+4+1], src[at+4+5] = 0xc0|41, 42 // scale and minimum of block 1, under upper bits of another
			src[at+16+18] = 0xa0                   // value 18 of block 1, above block 0's
			src[at+16+2] = 0xb0                    // value 2
			m.Pack(0, 3, src)
			if got := m.data[group+64+32+5:]; got[0] != 41 || got[16] != 42 {
				t.Errorf("q4_k: scale %d, minimum %d", got[0], got[16])
			}
			if got := m.data[group+320+256+5*4+2]; got != 0xab {
				t.Errorf("q4_k: %x", got)
			}
		case Q5_K:
			src[at+16+18] = 1 << 1 // the upper bit of value 18 of block 1
			src[at+48+18] = 0xa0
			m.Pack(0, 3, src)
			integers := m.data[group+320+320:]
			if got := integers[5*4+2]; got != 1<<4 {
				t.Errorf("q5_k: upper bits %x", got)
			}
			if got := integers[64+5*4+2]; got != 0xa0 {
				t.Errorf("q5_k: %x", got)
			}
		case Q6_K:
			src[at+192+3] = 0x85      // the scale of columns 48 to 63
			src[at+128+18] = 3 << 2   // the upper bits of value 18 of block 1
			src[at+32+18] = 0x0a      // its nibble
			src[at+32+18+4] = 0x0c    // that of value 22
			src[at+128+18+4] = 2 << 2 // and its upper bits
			m.Pack(0, 3, src)
			if got := m.data[group+64+32+16+5]; got != 0x85 {
				t.Errorf("q6_k: scale %x", got)
			}
			integers := m.data[group+320+384:]
			if got := integers[64+5*4+2]; got != 3|2<<2 {
				t.Errorf("q6_k: upper bits %x", got)
			}
			if got, next := integers[128+5*4+2], integers[128+64+5*4+2]; got != 0xa0 || next != 0xc0 {
				t.Errorf("q6_k: %x, %x", got, next)
			}
		}
	}
}

func TestMismatchesPanic(t *testing.T) {
	s := Best()
	matrix := func(f Format, rows, cols int) Matrix {
		return NewMatrix(make([]byte, PackedSize(f, rows, cols)), f, rows, cols)
	}
	for name, f := range map[string]func(){
		"columns of a quantised row": func() { NewMatrix(make([]byte, 10000), Q4_0, 4, 33) },
		"half a block of 256":        func() { NewMatrix(make([]byte, 10000), Q6_K, 4, 384) },
		"memory":                     func() { NewMatrix(make([]byte, 10), F32, 4, 32) },
		"rows to pack":               func() { m := matrix(F32, 3, 4); m.Pack(0, 1, make([]byte, 32)) },
		"half a row":                 func() { m := matrix(F32, 3, 4); m.Pack(0, 1, make([]byte, 40)) },
		"values to dequantise":       func() { Dequantize(Q8_0, make([]float32, 32), make([]byte, 33)) },
		"unlike columns": func() {
			s.MatMul(make([]float32, 16), 16, matrix(F32, 16, 4), 0, 1, s.Activations(make([]byte, 64), F32, 1, 8), 0, 1)
		},
		"unlike formats": func() {
			s.MatMul(make([]float32, 16), 16, matrix(F32, 16, 32), 0, 1, s.Activations(make([]byte, 64), Q8_0, 1, 32), 0, 1)
		},
		"short output": func() {
			s.MatMul(make([]float32, 15), 16, matrix(F32, 16, 4), 0, 1, s.Activations(make([]byte, 64), F32, 1, 4), 0, 1)
		},
		"half a panel": func() {
			s.MatMul(make([]float32, 64), 16, matrix(F32, 16, 4), 0, 1, s.Activations(make([]byte, 64), F32, 4, 4), 1, 3)
		},
		"norm of unlike lengths": func() { s.RMSNorm(make([]float32, 4), make([]float32, 4), make([]float32, 3), 1) },
		"norm of nothing":        func() { s.RMSNorm(nil, nil, nil, 1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}
