package model

import (
	"errors"
	"fmt"

	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
)

// Entry is one sequence's part of a batch: Count positions from First on. First is at or below the cached length, which
// it truncates.
type Entry struct {
	Cache *kvcache.Sequence // made for as many layers as the block has
	First token.Position
	Count int
}

// Embed writes the embeddings of the tokens to x, (len(ids), hidden): what goes into layer 0.
func (b *Block) Embed(x []float32, ids []token.ID) error {
	hidden, t := b.cfg.Hidden, b.ends.embedding
	if t == nil {
		return errors.New("embed: the block does not hold the token embedding")
	}
	if len(x) != len(ids)*hidden {
		return fmt.Errorf("embed: %d values for %d tokens of %d", len(x), len(ids), hidden)
	}
	for _, id := range ids {
		if id < 0 || int(id) >= b.cfg.Vocab {
			return fmt.Errorf("embed: token %d is not in the vocabulary of %d", id, b.cfg.Vocab)
		}
	}
	format, _ := formatOf(t.Type)
	bytes := format.RowBytes(hidden)
	for i, id := range ids {
		to := x[i*hidden:][:hidden]
		kernel.Dequantize(format, to, t.Data[int(id)*bytes:][:bytes])
		if b.cfg.EmbeddingScale != 1 {
			b.kernels.Scale(to, b.cfg.EmbeddingScale)
		}
	}
	return nil
}

// Forward runs the entries' rows through the block's layers, in place: x is (rows of all entries in order, hidden). It
// checks everything first and fails with kvcache.ErrFull, or with what is wrong, before it has changed x; the caches of
// entries before the one at fault may be truncated to their First by then. A sequence is in a batch once.
func (b *Block) Forward(x []float32, entries []Entry) error {
	return b.ForwardIn(b.Layers(), x, entries)
}

// ForwardIn is Forward through some of the block's layers alone: x is what goes into the first of them. Of the caches, too,
// only those of these layers count, and change.
func (b *Block) ForwardIn(layers Layers, x []float32, entries []Entry) error {
	all := b.Layers()
	if layers.First < all.First || layers.Last > all.Last || layers.Last < layers.First {
		return fmt.Errorf("forward: there are no layers %v in a block of %v", layers, all)
	}
	from, to := int(layers.First-b.first), int(layers.Last-b.first)
	if err := b.admit(from, to, x, entries); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	if from < to {
		b.pass.from.Store(int32(from))
		b.pass.to.Store(int32(to))
		b.runChunks(x, entries)
	}
	for i := range entries {
		e := &entries[i]
		e.Cache.AdvanceIn(from, to, int(e.First)+e.Count)
	}
	return nil
}

// admit checks the entries and reserves their positions in the layers [from, to), counted from the block's first.
func (b *Block) admit(from, to int, x []float32, entries []Entry) error {
	rows := 0
	for i := range entries {
		e := &entries[i]
		if e.Cache == nil || e.Cache.Layers() != len(b.layers) {
			return fmt.Errorf("entry %d has no cache for the block's %d layers", i, len(b.layers))
		}
		if s := e.Cache.Shape(); s.Heads != b.cfg.KVHeads || s.KeyDim != b.cfg.HeadDim || s.ValueDim != b.cfg.HeadDim {
			return fmt.Errorf("entry %d has a cache of another shape: %+v", i, s)
		}
		if e.First < 0 || e.Count < 1 || e.Count > MaxContext || int(e.First) > MaxContext-e.Count {
			return fmt.Errorf("entry %d has %d positions from %d", i, e.Count, e.First)
		}
		if cached := e.Cache.LenIn(from, to); int(e.First) > cached {
			return fmt.Errorf("entry %d starts at position %d, but only %d are cached: a gap", i, e.First, cached)
		}
		for j := range i {
			if entries[j].Cache == e.Cache {
				return fmt.Errorf("entries %d and %d are of one sequence", j, i)
			}
		}
		rows += e.Count
	}
	if len(x) != rows*b.cfg.Hidden {
		return fmt.Errorf("%d values for %d rows of %d", len(x), rows, b.cfg.Hidden)
	}
	for i := range entries {
		e := &entries[i]
		if err := e.Cache.ReserveIn(from, to, int(e.First), int(e.First)+e.Count); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return nil
}

// runChunks cuts the rows, in order, into chunks that the scratch holds. An entry may lie in several: a chunk has stored
// all its keys and values before the next one starts.
func (b *Block) runChunks(x []float32, entries []Entry) {
	done, n := 0, 0
	run := func() {
		b.pass.x = x[done*b.cfg.Hidden : (done+n)*b.cfg.Hidden]
		b.pass.rows.Store(int32(n))
		b.castLots(n)
		b.team.Do(b.task.forward)
		done, n = done+n, 0
	}
	for i := range entries {
		e := &entries[i]
		for j := range e.Count {
			b.scratch.rows[n] = row{e.Cache, e.First + token.Position(j)}
			if n++; n == b.maxRows {
				run()
			}
		}
	}
	if n > 0 {
		run()
	}
	clear(b.scratch.rows) // hold on to no sequence
	b.pass.x = nil
}

// forwardChunk is what each worker does for a chunk: it takes part in the steps, which do all the work.
func (b *Block) forwardChunk(worker int) {
	b.shareRows(worker, b.cfg.Rope.Dims, func(from, to int) {
		for t := from; t < to; t++ {
			b.turn(t)
		}
	})
	to := int(b.pass.to.Load())
	for index := int(b.pass.from.Load()); index < to; index++ {
		l := b.layers[index]
		switch b.cfg.Norms {
		case NormsBefore:
			b.preNormLayer(worker, l, index)
		case NormsAfter:
			b.postNormLayer(worker, l, index)
		case NormsAround:
			b.sandwichLayer(worker, l, index)
		}
	}
}

// turn computes the cosines and sines of row t's position, once for all layers.
func (b *Block) turn(t int) {
	pairs, position := b.cfg.Rope.Dims/2, b.scratch.rows[t].position
	b.angles.full.at(b.cos[t*pairs:][:pairs], b.sin[t*pairs:][:pairs], position)
	if !b.angles.same {
		b.angles.sliding.at(b.slidingCos[t*pairs:][:pairs], b.slidingSin[t*pairs:][:pairs], position)
	}
}

// Head writes the logits, (rows, vocab), of the last layer's outputs x, (rows, hidden), which it leaves as they are.
func (b *Block) Head(logits, x []float32) error {
	hidden, vocab := b.cfg.Hidden, b.cfg.Vocab
	rows := len(x) / hidden
	if b.ends.head.Rows == 0 {
		return errors.New("head: the block does not hold the output head")
	}
	if rows == 0 || len(x) != rows*hidden || len(logits) != rows*vocab {
		return fmt.Errorf("head: %d values of width %d into %d logits of %d", len(x), hidden, len(logits), vocab)
	}
	for from := 0; from < rows; from += b.maxRows {
		n := min(b.maxRows, rows-from)
		b.pass.x, b.pass.out = x[from*hidden:(from+n)*hidden], logits[from*vocab:(from+n)*vocab]
		b.pass.rows.Store(int32(n))
		b.team.Do(b.task.head)
	}
	b.pass.x, b.pass.out = nil, nil
	return nil
}

// headChunk is what each worker does for a chunk of Head.
func (b *Block) headChunk(worker int) {
	vocab := b.cfg.Vocab
	in := b.inputs(&b.ofHidden, b.cfg.Hidden)
	b.normalise(worker, in, b.ends.norm.values)
	b.shareGroups(worker, &b.ends.head, func(first, last int) {
		from, to := b.multiplyGroups(b.pass.out, vocab, &b.ends.head, in, first, last)
		for t := range b.rows() {
			logits := b.pass.out[t*vocab+from : t*vocab+to]
			if b.cfg.LogitDivisor != 1 {
				for i := range logits {
					logits[i] /= b.cfg.LogitDivisor
				}
			}
			if b.cfg.LogitCap != 0 {
				b.kernels.SoftCap(logits, b.cfg.LogitCap)
			}
		}
	})
}
