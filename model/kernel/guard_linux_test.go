package kernel

import (
	"fmt"
	"syscall"
	"testing"
	"unsafe"
)

// fence gives memory whose end, or start, touches a page that may not be accessed: a kernel that reads or writes beyond its
// buffers dies.
type fence struct {
	t     testing.TB
	atEnd bool
}

func (f fence) bytes(n int) []byte {
	f.t.Helper()
	page := syscall.Getpagesize()
	size := (n + page - 1) / page * page
	b, err := syscall.Mmap(-1, 0, size+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := syscall.Munmap(b); err != nil {
			f.t.Error(err)
		}
	})
	for _, guard := range [][]byte{b[:page], b[page+size:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			f.t.Fatal(err)
		}
	}
	if f.atEnd {
		return b[page+size-n:][:n:n]
	}
	return b[page:][:n:n]
}

func (f fence) floats(x []float32) []float32 {
	b := f.bytes(4 * len(x))
	c := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(x))
	copy(c, x)
	return c
}

// fences runs a test with memory fenced at its end, and then at its start.
func fences(t *testing.T, run func(t *testing.T, f func(t *testing.T) fence)) {
	for _, atEnd := range []bool{true, false} {
		t.Run(fmt.Sprintf("end=%v", atEnd), func(t *testing.T) {
			run(t, func(t *testing.T) fence { return fence{t, atEnd} })
		})
	}
}

func TestVectorsStayWithinTheirBuffers(t *testing.T) {
	fences(t, func(t *testing.T, fenced func(*testing.T) fence) {
		for _, n := range []int{1, 7, 15, 16, 17, 33, 576} {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				f, r := fenced(t), newRandom(1)
				var v [4][]float32
				for i := range v {
					v[i] = f.floats(gaussian(r, n))
				}
				for _, op := range vectorOperations {
					for _, s := range Sets() {
						op.run(s, v[0], v[1], v[2], v[3])
					}
				}
			})
		}
	})
}

func TestProductsStayWithinTheirBuffers(t *testing.T) {
	fences(t, func(t *testing.T, fenced func(*testing.T) fence) {
		for _, format := range allFormats {
			for _, rows := range []int{1, 16, 33, 80} {
				t.Run(fmt.Sprint(format, rows), func(t *testing.T) {
					cols := wholeBlocks(format, 96)
					f, r := fenced(t), newRandom(1)
					m := NewMatrix(f.bytes(PackedSize(format, rows, cols)), format, rows, cols)
					src := f.bytes(rows * format.RowBytes(cols))
					copy(src, ordinaryRows(r, format, rows, cols))
					m.Pack(0, m.Groups(), src)
					for _, tokens := range []int{1, 3, 5, 12, 13, 32, 33, 46} {
						x, out := f.floats(gaussian(r, tokens*cols)), f.floats(make([]float32, tokens*rows))
						memory := f.bytes(ActivationBytes(format, tokens, cols))
						for _, s := range Sets() {
							a := s.Activations(memory, format, tokens, cols)
							s.Quantize(a, x, cols, 0, tokens)
							s.MatMul(out, rows, m, 0, m.Groups(), a, 0, tokens)
						}
					}
				})
			}
		}
	})
}

func TestAttentionStaysWithinItsBuffers(t *testing.T) {
	fences(t, func(t *testing.T, fenced func(*testing.T) fence) {
		for _, shape := range pageShapes {
			t.Run(fmt.Sprint(shape), func(t *testing.T) {
				f, r := fenced(t), newRandom(1)
				const n, positions = 5, 70
				h := newHistory(Best(), r, shape, positions)
				for i, p := range h.pages {
					h.pages[i] = f.bytes(shape.Bytes())
					copy(h.pages[i], p)
				}
				q, out := f.floats(gaussian(r, n*shape.KeyDim)), f.floats(make([]float32, n*shape.ValueDim))
				key, value := f.floats(h.keys[:shape.KeyDim]), f.floats(h.values[:shape.ValueDim])
				for _, s := range Sets() {
					s.Store(shape, h.pages[1], shape.Heads-1, positions-1, key, value)
					at := &Attention{Shape: shape, Pages: h.pages, Head: shape.Heads - 1, Queries: n, Rows: 1, End: positions, Scale: 1}
					s.Attend(out, q, at, NewAttentionScratch(shape, n))
				}
			})
		}
	})
}
