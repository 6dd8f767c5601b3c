package kernel

import (
	"fmt"
	"math"
)

// AttentionScratch is what one worker needs while it attends. Keep one for each worker.
type AttentionScratch struct {
	scores []float32 // (query heads, 64)
	tile   []float32 // (query heads, value lanes): the tile's output
	total  []float32 // (query heads, value lanes): the output of all tiles so far

	tileWeight, totalWeight []weight // (query heads)
}

// weight is what an output of attention stands for: the largest score under it, and the sum of exp(score - maximum).
type weight struct{ maximum, sum float32 }

// NewAttentionScratch serves up to queryHeads query heads in a call.
func NewAttentionScratch(shape PageShape, queryHeads int) *AttentionScratch {
	shape.check()
	n := queryHeads * shape.valueLanes()
	return &AttentionScratch{
		scores: make([]float32, queryHeads*TilePositions),
		tile:   make([]float32, n),
		total:  make([]float32, n),

		tileWeight:  make([]weight, queryHeads),
		totalWeight: make([]weight, queryHeads),
	}
}

// Attention is one call of Attend: one query position, one head of keys and values, and the query heads that share it.
type Attention struct {
	Shape   PageShape
	Pages   []Page  // by tile; those wholly below First are not looked at
	Head    int     // of the keys and values
	First   int     // the first position attended, above 0 with a sliding window
	End     int     // one past the last, usually the query's position + 1
	Scale   float32 // of the scores; above 0
	SoftCap float32 // scores become SoftCap*tanh(score/SoftCap); 0: they stay
}

// Attend computes, for each query head, the average of the values at positions [First, End), weighted by the softmax
// of the scaled products of query and keys. q is (query heads, KeyDim), out (query heads, ValueDim).
//
// A tile gives, over its active positions only: scores, one FMA chain along KeyDim each, times Scale; their maximum m;
// the weights exp(score - m); their sum l, by lanes and tree; and the output o, one FMA chain along the positions. Tiles
// are merged in order: m' = max(M, m), a = exp(M - m'), b = exp(m - m'), L = L a + l b, O = O a + o b, each an FMA on a
// rounded product. The bits depend on the query, on those keys and values, and on their positions: on nothing else.
func (s *Set) Attend(out, q []float32, at *Attention, scratch *AttentionScratch) {
	shape := at.Shape
	shape.check()
	n := len(q) / shape.KeyDim
	if len(q) != n*shape.KeyDim || len(out) != n*shape.ValueDim || n > len(scratch.tileWeight) || n*shape.valueLanes() > len(scratch.tile) {
		panic(fmt.Sprintf("kernel: attend %d queries to %d outputs of %+v", len(q), len(out), shape))
	}
	if at.First < 0 || at.First >= at.End || (at.End-1)/TilePositions >= len(at.Pages) || !(at.Scale > 0) {
		panic(fmt.Sprintf("kernel: attend to positions %d-%d in %d pages, scale %g", at.First, at.End, len(at.Pages), at.Scale))
	}
	for tile := at.First / TilePositions; tile*TilePositions < at.End; tile++ {
		s.attendTile(q, at, tile, n, scratch)
	}
	lanes := shape.valueLanes()
	for h := range n {
		total := scratch.total[h*lanes:][:lanes]
		s.scale(total, 1/scratch.totalWeight[h].sum)
		copy(out[h*shape.ValueDim:][:shape.ValueDim], total)
	}
}

// attendTile attends to the positions of a tile and merges the result into scratch's totals.
func (s *Set) attendTile(q []float32, at *Attention, tile, n int, scratch *AttentionScratch) {
	from := max(at.First-tile*TilePositions, 0)
	to := min(at.End-tile*TilePositions, TilePositions)
	keys, values := at.Shape.head(at.Pages[tile], at.Head)
	next := keys
	if (tile+1)*TilePositions < at.End {
		next, _ = at.Shape.head(at.Pages[tile+1], at.Head)
	}
	scores := scratch.scores[:n*TilePositions]
	s.scores(at.Shape.Format, scores, q, keys, at.Shape.KeyDim, n, at.Scale)
	if at.SoftCap != 0 {
		s.softCap(scores, at.SoftCap)
	}
	weights, output := scratch.tileWeight, scratch.tile
	first := tile == at.First/TilePositions
	if first {
		weights, output = scratch.totalWeight, scratch.total
	}
	for h := range n {
		row := (*tileScores)(scores[h*TilePositions:])
		mask(row, from, to)
		weights[h].maximum, weights[h].sum = s.softmaxTile(row)
	}
	lanes := at.Shape.valueLanes()
	s.values(at.Shape.Format, output, scores, values, next, from, to, lanes, n)
	if first {
		return
	}
	for h := range n {
		s.merge(scratch.total[h*lanes:][:lanes], output[h*lanes:][:lanes], &scratch.totalWeight[h], &weights[h])
	}
}

// tileScores are one query head's scores of a tile, and then its weights.
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
