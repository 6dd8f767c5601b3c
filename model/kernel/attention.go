package kernel

import (
	"fmt"
	"math"
)

// AttentionScratch is what one worker needs while it attends. Keep one for each worker.
type AttentionScratch struct {
	queries []float32 // (queries, KeyDim), of all rows
	scores  []float32 // (queries, 64)
	tile    []float32 // (queries, value lanes): the tile's output
	total   []float32 // (queries, value lanes): the output of all tiles so far

	tileWeight, totalWeight []weight // (queries)
}

// weight is what an output of attention stands for: the largest score under it, and the sum of exp(score - maximum).
type weight struct{ maximum, sum float32 }

// NewAttentionScratch serves calls of up to so many queries: rows times query heads.
func NewAttentionScratch(shape PageShape, queries int) *AttentionScratch {
	shape.check()
	n := queries * shape.valueLanes()
	return &AttentionScratch{
		queries: make([]float32, queries*shape.KeyDim),
		scores:  make([]float32, queries*TilePositions),
		tile:    make([]float32, n),
		total:   make([]float32, n),

		tileWeight:  make([]weight, queries),
		totalWeight: make([]weight, queries),
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
	if at.Rows < 1 || n < 1 || at.Rows*n > len(scratch.tileWeight) || at.Rows*n*shape.KeyDim > len(scratch.queries) || at.Rows*n*shape.valueLanes() > len(scratch.tile) {
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
		s.scale(total, 1/scratch.totalWeight[i].sum)
		copy(out[i/n*at.OutStride+i%n*shape.ValueDim:][:shape.ValueDim], total)
	}
}

// attendTile attends to the positions of a tile and merges the result into scratch's totals. The scores of all rows that
// reach the tile are computed at once, the outputs of those that attend to the same of its slots.
func (s *Set) attendTile(at *Attention, tile int, scratch *AttentionScratch) {
	shape, n := at.Shape, at.Queries
	start := tile * TilePositions
	row, end := max(0, start-at.End+1), at.Rows
	if at.Window > 0 {
		end = min(end, start+TilePositions+at.Window-at.End)
	}
	keys, values := shape.head(at.Pages[tile], at.Head)
	next := keys
	if start+TilePositions < at.End+at.Rows-1 {
		next, _ = shape.head(at.Pages[tile+1], at.Head)
	}
	scores := scratch.scores[row*n*TilePositions : end*n*TilePositions]
	s.scores(shape.Format, scores, scratch.queries[row*n*shape.KeyDim:end*n*shape.KeyDim], keys, shape.KeyDim, (end-row)*n, at.Scale)
	if at.SoftCap != 0 {
		s.softCap(scores, at.SoftCap)
	}
	for row < end {
		span, rows := at.span(row, tile), 1
		for row+rows < end && at.span(row+rows, tile) == span {
			rows++
		}
		s.attendSpan(at, span, row*n, rows*n, values, next, scratch)
		row += rows
	}
}

// attendSpan turns the scores of count queries, from the first on, into outputs of a tile's span.
func (s *Set) attendSpan(at *Attention, span span, first, count int, values, next []byte, scratch *AttentionScratch) {
	lanes := at.Shape.valueLanes()
	scores := scratch.scores[first*TilePositions:][:count*TilePositions]
	total, totalWeight := scratch.total[first*lanes:][:count*lanes], scratch.totalWeight[first:][:count]
	output, weights := scratch.tile[first*lanes:][:count*lanes], scratch.tileWeight[first:][:count]
	if span.first {
		output, weights = total, totalWeight
	}
	for i := range count {
		line := (*tileScores)(scores[i*TilePositions:])
		mask(line, span.from, span.to)
		weights[i].maximum, weights[i].sum = s.softmaxTile(line)
	}
	s.values(at.Shape.Format, output, scores, values, next, span.from, span.to, lanes, count)
	if span.first {
		return
	}
	for i := range count {
		s.merge(total[i*lanes:][:lanes], output[i*lanes:][:lanes], &totalWeight[i], &weights[i])
	}
}

// tileScores are one query's scores of a tile, and then its weights.
type tileScores = [TilePositions]float32

// mask gives the slots outside [from, to) no weight, whatever garbage their keys are.
func mask(scores *tileScores, from, to int) {
	none := float32(math.Inf(-1))
	for i := range from {
		scores[i] = none
	}
	for i := to; i < TilePositions; i++ {
		scores[i] = none
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

// softmaxTileReference replaces scores by exp(score - maximum).
func softmaxTileReference(scores *tileScores) (maximum, sum float32) {
	maximum = scores[0]
	for _, v := range scores[1:] {
		maximum = max32(v, maximum)
	}
	var acc lanes
	expAddReference(&acc, scores[:], maximum)
	return maximum, treeSum(&acc)
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

// mergeReference adds a tile's output and weight to the total.
func mergeReference(total, part []float32, weight, partWeight *weight) {
	maximum := max32(partWeight.maximum, weight.maximum)
	a, b := Exp(weight.maximum-maximum), Exp(partWeight.maximum-maximum)
	weight.maximum = maximum
	weight.sum = FMA32(weight.sum, a, partWeight.sum*b)
	for i, v := range part {
		total[i] = FMA32(total[i], a, v*b)
	}
}

// cached is element i of keys or values.
func cached(f Format, b []byte, i int) float32 {
	if f == F32 {
		return f32At(b, i)
	}
	return halfToFloat(u16At(b, i))
}
