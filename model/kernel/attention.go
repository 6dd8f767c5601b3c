package kernel

import (
	"fmt"
	"math"
)

// AttentionScratch is what one worker needs while it attends. Keep one for each worker.
type AttentionScratch struct {
	queries []float32 // (queries, KeyDim), of all rows
	total   []float32 // (queries, value lanes): the output of all tiles so far
	weights []weight  // (queries), of total

	tile   []byte    // a tile's keys and values as float32, laid out as in a page
	scores []float32 // (batch, 64), of the queries in hand
	part   []float32 // (batch, value lanes): their output of the tile
	parts  []weight  // (batch), of part
}

// batch is the most queries whose scores of a tile are in hand at once: as many as the assembly has registers for.
const batch = 6

// weight is what an output of attention stands for: the largest score under it, and the sum of exp(score - maximum).
type weight struct{ maximum, sum float32 }

// NewAttentionScratch serves calls of up to so many queries: rows times query heads.
func NewAttentionScratch(shape PageShape, queries int) *AttentionScratch {
	shape.check()
	width := shape.valueLanes()
	return &AttentionScratch{
		queries: make([]float32, queries*shape.KeyDim),
		total:   make([]float32, queries*width),
		weights: make([]weight, queries),

		tile:   Aligned(TilePositions * (shape.KeyDim + width) * 4),
		scores: floats(Aligned(batch * TilePositions * 4)),
		part:   make([]float32, batch*width),
		parts:  make([]weight, batch),
	}
}

// Attention is one call of Attend: one head of keys and values, query heads that share it, and rows, which are query
// positions that follow each other. More queries at once read the keys and values less often.
type Attention struct {
	Shape   PageShape
	Pages   []Page  // by tile; those wholly below what the first row attends to are not looked at
	Head    int     // of the keys and values
	Queries int     // query heads
	Rows    int     // query positions
	End     int     // one past the last position that the first row attends to; each further row attends to one more
	Window  int     // how many positions a row attends to at most, the last ones; 0: all
	Scale   float32 // of the scores; above 0
	SoftCap float32 // scores become SoftCap*tanh(score/SoftCap); 0: they stay

	QueryStride, OutStride int // from a row's queries, and outputs, to the next row's
}

// reach is the range of positions that a row attends to.
func (at *Attention) reach(row int) (first, end int) {
	end = at.End + row
	if at.Window > 0 {
		first = max(0, end-at.Window)
	}
	return first, end
}

// span is what a row attends to in a tile.
type span struct {
	from, to int  // slots
	first    bool // no earlier tile counts
}

func (at *Attention) span(row, tile int) span {
	first, end := at.reach(row)
	start := tile * TilePositions
	return span{max(first-start, 0), min(end-start, TilePositions), first >= start}
}

// run is what query i attends to in a tile, and the end of the queries from i on, at most last, that attend to the same: all
// of them most often, else the others of its row.
func (at *Attention) run(tile, i, last int) (span, int) {
	row := i / at.Queries
	span := at.span(row, tile)
	if end := (row + 1) * at.Queries; end < last && span != at.span((last-1)/at.Queries, tile) {
		return span, end
	}
	return span, last
}

// Attend computes, for each row and query head, the average of the values at the positions in reach, weighted by the
// softmax of the scaled products of query and keys. A row of q is (Queries, KeyDim), a row of out (Queries, ValueDim).
//
// A tile gives, over its active positions only: scores, one FMA chain along KeyDim each, times Scale; their maximum m;
// the weights exp(score - m); their sum l, by lanes and tree; and the output o, one FMA chain along the positions. Tiles
// are merged in order: m' = max(M, m), a = exp(M - m'), b = exp(m - m'), L = L a + l b, O = O a + o b, each an FMA on a
// rounded product. The bits depend on the query, on those keys and values, and on their positions: on nothing else.
func (s *Set) Attend(out, q []float32, at *Attention, scratch *AttentionScratch) {
	shape, n := at.Shape, at.Queries
	shape.check()
	if at.Rows < 1 || n < 1 || at.Rows*n > len(scratch.weights) || at.Rows*n*shape.KeyDim > len(scratch.queries) || at.Rows*n*shape.valueLanes() > len(scratch.total) || TilePositions*(shape.KeyDim+shape.valueLanes())*4 > len(scratch.tile) || batch*shape.valueLanes() > len(scratch.part) {
		panic(fmt.Sprintf("kernel: attend with %d rows of %d queries of %+v", at.Rows, n, shape))
	}
	start, _ := at.reach(0)
	_, end := at.reach(at.Rows - 1)
	if at.End < 1 || at.Window < 0 || (end-1)/TilePositions >= len(at.Pages) || !(at.Scale > 0) {
		panic(fmt.Sprintf("kernel: attend to %d positions before %d in %d pages, scale %g", at.Window, end, len(at.Pages), at.Scale))
	}
	width := n * shape.KeyDim
	for row := range at.Rows {
		copy(scratch.queries[row*width:][:width], q[row*at.QueryStride:][:width])
	}
	for tile := start / TilePositions; tile*TilePositions < end; tile++ {
		s.attendTile(at, tile, scratch)
	}
	lanes := shape.valueLanes()
	for i := range at.Rows * n {
		total := scratch.total[i*lanes:][:lanes]
		s.scale(total, 1/scratch.weights[i].sum)
		copy(out[i/n*at.OutStride+i%n*shape.ValueDim:][:shape.ValueDim], total)
	}
}

// attendTile attends to the positions of a tile, with the queries that reach it, and merges the result into scratch's totals.
func (s *Set) attendTile(at *Attention, tile int, scratch *AttentionScratch) {
	start := tile * TilePositions
	row, end := max(0, start-at.End+1), at.Rows
	if at.Window > 0 {
		end = min(end, start+TilePositions+at.Window-at.End)
	}
	view := tileView{format: at.Shape.Format}
	view.keys, view.values = at.Shape.head(at.Pages[tile], at.Head)
	view.next = view.keys
	if start+TilePositions < at.End+at.Rows-1 {
		view.next, _ = at.Shape.head(at.Pages[tile+1], at.Head)
	}
	first, last := row*at.Queries, end*at.Queries
	if last-first > batch && view.format == F16 {
		s.widen(&view, scratch.tile)
	}
	for ; first < last; first += batch {
		s.attendBatch(at, tile, &view, first, min(first+batch, last), scratch)
	}
}

// tileView is one head's keys and values of a tile, and the next tile's keys, which are fetched to the cache meanwhile.
type tileView struct {
	format             Format
	keys, values, next []byte
}

// widen converts keys and values to float32, once for the many queries that read them.
func (s *Set) widen(view *tileView, tile []byte) {
	keys, values := 2*len(view.keys), 2*len(view.values)
	wideKeys, wideValues := tile[:keys], tile[keys:][:values]
	s.HalvesToFloats(floats(wideKeys), halves(view.keys))
	s.HalvesToFloats(floats(wideValues), halves(view.values))
	view.format, view.keys, view.values = F32, wideKeys, wideValues
}

// attendBatch attends with the queries [first, last), at most a batch.
func (s *Set) attendBatch(at *Attention, tile int, view *tileView, first, last int, scratch *AttentionScratch) {
	dim, width, count := at.Shape.KeyDim, at.Shape.valueLanes(), last-first
	scores, parts := scratch.scores[:count*TilePositions], scratch.parts[:count]
	s.scores(view.format, scores, scratch.queries[first*dim:last*dim], view.keys, dim, count, at.Scale)
	if at.SoftCap != 0 {
		s.softCap(scores, at.SoftCap)
	}
	for i := first; i < last; {
		span, end := at.run(tile, i, last)
		mask(scores[(i-first)*TilePositions:(end-first)*TilePositions], span)
		i = end
	}
	s.softmaxTile(scores, parts)
	for i := first; i < last; {
		span, end := at.run(tile, i, last)
		weights := scores[(i-first)*TilePositions : (end-first)*TilePositions]
		total, totals, parts := scratch.total[i*width:end*width], scratch.weights[i:end], parts[i-first:end-first]
		if span.first {
			s.values(view.format, total, weights, view.values, view.next, span.from, span.to, width, end-i)
			copy(totals, parts)
		} else {
			part := scratch.part[:len(total)]
			s.values(view.format, part, weights, view.values, view.next, span.from, span.to, width, end-i)
			s.merge(total, part, totals, parts)
		}
		i = end
	}
}

// mask gives the slots outside a span no weight, whatever garbage their keys are.
func mask(scores []float32, span span) {
	none := float32(math.Inf(-1))
	for ; len(scores) > 0 && (span.from > 0 || span.to < TilePositions); scores = scores[TilePositions:] {
		for i := range span.from {
			scores[i] = none
		}
		for i := span.to; i < TilePositions; i++ {
			scores[i] = none
		}
	}
}

// scoresReference computes the n x 64 scaled products of n queries and the keys of a tile, masked slots included.
func scoresReference(f Format, scores, q []float32, keys []byte, dim, n int, scale float32) {
	for h := range n {
		for i := range TilePositions {
			var sum float32
			for d := range dim {
				sum = FMA32(cached(f, keys, (i/Lanes*dim+d)*Lanes+i%Lanes), q[h*dim+d], sum)
			}
			scores[h*TilePositions+i] = sum * scale
		}
	}
}

// softmaxTileReference replaces the scores of each query by exp(score - maximum).
func softmaxTileReference(scores []float32, weights []weight) {
	for i := range weights {
		line := scores[i*TilePositions:][:TilePositions]
		maximum := line[0]
		for _, v := range line[1:] {
			maximum = max32(v, maximum)
		}
		var acc lanes
		expAddReference(&acc, line, line, maximum, 1)
		weights[i] = weight{maximum, treeSum(&acc)}
	}
}

// valuesReference adds up the values of the slots [from, to) times their weights, for n query heads.
func valuesReference(f Format, out, weights []float32, values []byte, from, to, width, n int) {
	for h := range n {
		for d := range width {
			var sum float32
			for i := from; i < to; i++ {
				sum = FMA32(cached(f, values, i*width+d), weights[h*TilePositions+i], sum)
			}
			out[h*width+d] = sum
		}
	}
}

// mergeReference adds each query's output and weight of a tile to the total.
func mergeReference(total, part []float32, weights, parts []weight) {
	width := len(total) / len(weights)
	for i := range weights {
		w, p := &weights[i], &parts[i]
		maximum := max32(p.maximum, w.maximum)
		a, b := Exp(w.maximum-maximum), Exp(p.maximum-maximum)
		w.maximum = maximum
		w.sum = FMA32(w.sum, a, p.sum*b)
		for d, v := range part[i*width:][:width] {
			t := &total[i*width+d]
			*t = FMA32(*t, a, v*b)
		}
	}
}

// cached is element i of keys or values.
func cached(f Format, b []byte, i int) float32 {
	if f == F32 {
		return f32At(b, i)
	}
	return halfToFloat(u16At(b, i))
}
