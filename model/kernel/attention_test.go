package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// history is the keys and values of one head, before they are rounded, and the pages that hold them.
type history struct {
	shape        PageShape
	keys, values []float32
	pages        []Page
}

// newHistory stores n positions, for every head, in pages that held garbage before.
func newHistory(s *Set, r *rand.Rand, shape PageShape, n int) *history {
	h := &history{shape: shape, keys: gaussian(r, n*shape.KeyDim), values: gaussian(r, n*shape.ValueDim)}
	for range (n + TilePositions - 1) / TilePositions {
		h.pages = append(h.pages, garbagePage(shape))
	}
	for p := range n {
		for head := range shape.Heads {
			s.Store(shape, h.pages[p/TilePositions], head, p, h.keys[p*shape.KeyDim:][:shape.KeyDim], h.values[p*shape.ValueDim:][:shape.ValueDim])
		}
	}
	return h
}

// garbagePage is a page full of NaN and infinities, as a recycled one may be.
func garbagePage(shape PageShape) Page {
	page := Page(Aligned(shape.Bytes()))
	for i := range len(page) / 2 {
		putU16(page, i, [...]uint16{0x7fc0, 0x7c00, 0xfc00, 0xffff, 0x7f80}[i%5])
	}
	return page
}

var pageShapes = []PageShape{
	{F16, 2, 64, 64}, {F32, 1, 64, 64}, {F16, 1, 16, 16}, {F32, 2, 8, 8}, {F16, 1, 80, 80}, {F16, 1, 128, 128}, {F32, 1, 96, 96},
	{F16, 2, 24, 40}, {F16, 1, 256, 256}, {F32, 1, 5, 7},
}

// TestAttendMatchesReference compares every Set with the reference, for groups of any size, windows, and soft caps.
func TestAttendMatchesReference(t *testing.T) {
	for _, shape := range pageShapes {
		r := newRandom(uint64(shape.KeyDim))
		h := newHistory(reference(), r, shape, 200)
		for _, n := range []int{1, 2, 3, 4, 5, 6, 7, 9, 13} {
			q := gaussian(r, n*shape.KeyDim)
			for _, window := range [][2]int{{0, 1}, {0, 5}, {0, 64}, {0, 65}, {0, 200}, {3, 63}, {63, 65}, {70, 71}, {100, 199}, {128, 192}} {
				at := &Attention{Shape: shape, Pages: h.pages, Head: shape.Heads - 1, Queries: n, Rows: 1, End: window[1], Window: window[1] - window[0], Scale: 0.3}
				if n == 4 {
					at.SoftCap = 5
				}
				want := make([]float32, n*shape.ValueDim)
				reference().Attend(want, q, at, NewAttentionScratch(shape, n))
				for i, v := range want {
					if v != v {
						t.Fatalf("%+v, %v: output %d is a NaN: garbage was used", shape, window, i)
					}
				}
				for _, s := range fastSets() {
					got := make([]float32, len(want))
					s.Attend(got, q, at, NewAttentionScratch(shape, n))
					checkBits(t, fmt.Sprintf("%s, %+v, %d queries, %v", s.Name, shape, n, window), got, want)
				}
			}
		}
	}
}

// TestAttendAgainstFloat64 compares with softmax(q k) v as the paper has it.
func TestAttendAgainstFloat64(t *testing.T) {
	for _, shape := range pageShapes {
		for _, softCap := range []float64{0, 4} {
			r := newRandom(3)
			h := newHistory(Best(), r, shape, 150)
			const n, first, end, scale = 3, 40, 150, 0.125
			q := gaussian(r, n*shape.KeyDim)
			round := func(v float32) float64 {
				if shape.Format == F16 {
					v = halfToFloat(floatToHalf(v))
				}
				return float64(v)
			}
			at := &Attention{Shape: shape, Pages: h.pages, Queries: n, Rows: 1, End: end, Window: end - first, Scale: scale, SoftCap: float32(softCap)}
			for _, s := range Sets() {
				got := make([]float32, n*shape.ValueDim)
				s.Attend(got, q, at, NewAttentionScratch(shape, n))
				for i := range n {
					var sum float64
					want := make([]float64, shape.ValueDim)
					for p := first; p < end; p++ {
						score := 0.0
						for d := range shape.KeyDim {
							score += round(h.keys[p*shape.KeyDim+d]) * float64(q[i*shape.KeyDim+d])
						}
						score *= scale
						if softCap != 0 {
							score = softCap * math.Tanh(score/softCap)
						}
						e := math.Exp(score)
						sum += e
						for d := range want {
							want[d] += e * round(h.values[p*shape.ValueDim+d])
						}
					}
					for d := range want {
						w := want[d] / sum
						if g := float64(got[i*shape.ValueDim+d]); !(math.Abs(g-w) <= 1e-4*(1+math.Abs(w))) {
							t.Fatalf("%s, %+v: query %d, dimension %d is %g, want %g", s.Name, shape, i, d, g, w)
						}
					}
				}
			}
		}
	}
}

// TestAttendDoesNotDependOn checks the promises that let prefill be cut anywhere: how queries are grouped, what lies in other
// slots and pages, and where pages are, change no bit.
func TestAttendDoesNotDependOn(t *testing.T) {
	shape := PageShape{F16, 2, 64, 64}
	for _, s := range Sets() {
		r := newRandom(4)
		h := newHistory(s, r, shape, 300)
		const n, first, end = 6, 70, 201
		q := gaussian(r, n*shape.KeyDim)
		at := Attention{Shape: shape, Pages: h.pages, Head: 1, Queries: n, Rows: 1, End: end, Window: end - first, Scale: 0.2}
		scratch := NewAttentionScratch(shape, n)
		want := make([]float32, n*shape.ValueDim)
		s.Attend(want, q, &at, scratch)

		got := make([]float32, len(want))
		single := at
		single.Queries = 1
		for i := range n {
			s.Attend(got[i*shape.ValueDim:][:shape.ValueDim], q[i*shape.KeyDim:][:shape.KeyDim], &single, scratch)
		}
		checkBits(t, s.Name+": queries one by one", got, want)

		// Only positions first to end, stored late to early in other memory, pages below absent.
		moved := at
		moved.Pages = make([]Page, 4)
		for p := end - 1; p >= first; p-- {
			page := &moved.Pages[p/TilePositions]
			if *page == nil {
				*page = garbagePage(shape)
			}
			s.Store(shape, *page, 1, p, h.keys[p*shape.KeyDim:][:shape.KeyDim], h.values[p*shape.ValueDim:][:shape.ValueDim])
		}
		s.Attend(got, q, &moved, scratch)
		checkBits(t, s.Name+": other pages", got, want)
	}
}

// TestRowsAtOnce compares rows attended in one call with the same rows one by one: within a tile, across the edges of tiles,
// with windows of every kind.
func TestRowsAtOnce(t *testing.T) {
	for _, shape := range []PageShape{{F16, 2, 64, 64}, {F32, 1, 8, 12}, {F16, 1, 256, 256}} {
		r := newRandom(6)
		h := newHistory(reference(), r, shape, 300)
		for _, c := range []struct{ queries, rows, end, window int }{
			{1, 1, 1, 0}, {1, 24, 1, 0}, {3, 8, 60, 0}, {3, 8, 64, 0}, {3, 70, 1, 0}, {2, 12, 128, 0}, {4, 130, 150, 0}, {1, 5, 296, 0},
			{3, 8, 1, 5}, {1, 24, 60, 1}, {2, 12, 120, 64}, {2, 12, 127, 65}, {3, 100, 30, 3}, {3, 100, 30, 70}, {1, 9, 250, 128}, {2, 90, 1, 300},
		} {
			queryStride, outStride := c.queries*shape.KeyDim+3, c.queries*shape.ValueDim+5
			q := gaussian(r, c.rows*queryStride)
			at := Attention{Shape: shape, Pages: h.pages, Head: shape.Heads - 1, Queries: c.queries, Rows: c.rows, End: c.end, Window: c.window,
				Scale: 0.3, QueryStride: queryStride, OutStride: outStride}
			scratch := NewAttentionScratch(shape, c.queries*c.rows)
			want := make([]float32, c.rows*outStride)
			for row := range c.rows {
				single := at
				single.Rows, single.End = 1, c.end+row
				reference().Attend(want[row*outStride:], q[row*queryStride:], &single, scratch)
			}
			for _, s := range Sets() {
				got := make([]float32, len(want))
				s.Attend(got, q, &at, scratch)
				checkBits(t, fmt.Sprintf("%s, %+v, %+v", s.Name, shape, c), got, want)
			}
		}
	}
}

// TestAttendPoison makes sure that a key which is not finite, at a position that counts, is not lost.
func TestAttendPoison(t *testing.T) {
	shape := PageShape{F32, 1, 16, 16}
	nan := float32(math.NaN())
	for _, s := range Sets() {
		for _, bad := range []int{0, 17, 63, 64, 90} {
			h := newHistory(s, newRandom(5), shape, 100)
			key := append([]float32{}, h.keys[:16]...)
			key[3] = nan
			s.Store(shape, h.pages[bad/TilePositions], 0, bad, key, h.values[:16])
			out := make([]float32, 16)
			at := &Attention{Shape: shape, Pages: h.pages, Queries: 1, Rows: 1, End: 100, Scale: 1}
			s.Attend(out, h.keys[16:32], at, NewAttentionScratch(shape, 1))
			for i, v := range out {
				if v == v {
					t.Fatalf("%s: output %d is %g although key %d is a NaN", s.Name, i, v, bad)
				}
			}
		}
	}
}
