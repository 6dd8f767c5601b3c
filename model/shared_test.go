package model

import (
	"testing"

	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
)

// TestLentWeights: a block that is loaded with what others lend computes the same bits, reads only what they do not have, and
// lives on when they are gone; the last one frees the memory.
func TestLentWeights(t *testing.T) {
	g := openGolden(t, "llama")
	ids := g.Prompts["short"].TokenIDs
	load := func(layers Layers, head bool, read *int64, lent ...*Lent) *Block {
		t.Helper()
		b, err := LoadBlock(t.Context(), g.file, g.cfg, layers, Options{Embedding: layers.First == 0, Head: head, Lent: lent, Threads: 2,
			Progress: func(_, total int64) { *read = total }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		return b
	}
	compute := func(b *Block) []float32 {
		pool, err := kvcache.NewPool(kvcache.Config{KVHeads: g.cfg.KVHeads, HeadDim: g.cfg.HeadDim, Bytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		x := make([]float32, len(ids)*g.cfg.Hidden)
		if err := b.Embed(x, ids); err != nil {
			t.Fatal(err)
		}
		cache := pool.NewSequence(g.cfg.Layers)
		for _, layers := range []Layers{{0, 3}, {3, 3}, {3, 4}} { // in parts, as replays run
			if err := b.ForwardIn(layers, x, []Entry{{Cache: cache, First: token.Position(0), Count: len(ids)}}); err != nil {
				t.Fatal(err)
			}
		}
		logits := make([]float32, len(ids)*g.cfg.Vocab)
		if err := b.Head(logits, x); err != nil {
			t.Fatal(err)
		}
		return logits
	}
	all := Layers{0, LayerIndex(g.cfg.Layers)}
	var whole, some, rest, nothing int64
	want := compute(load(all, true, &whole))

	lender, other := load(Layers{1, 3}, false, &some), load(Layers{3, 4}, true, &some)
	lent := []*Lent{lender.Lend(), other.Lend()}
	lender.Close()
	b := load(all, true, &rest, lent...)
	for _, l := range lent {
		l.Close()
	}
	other.Close()
	if rest <= 0 || rest >= whole/2 {
		t.Errorf("%d bytes were read of %d, though all but layer 0 was lent", rest, whole)
	}
	same(t, "a block of lent weights", compute(b), want)

	last := b.Lend()
	twin := load(all, true, &nothing, last)
	last.Close()
	b.Close()
	if nothing != 0 {
		t.Errorf("%d bytes were read where all was lent", nothing)
	}
	same(t, "a block of nothing but lent weights", compute(twin), want)
	memory := twin.layers[2].shared
	if twin.Close(); memory.memory != nil || memory.holders.Load() != 0 {
		t.Errorf("%d still hold the weights of layer 2", memory.holders.Load())
	}
	if err := twin.ForwardIn(Layers{0, 5}, nil, nil); err == nil {
		t.Error("layers that the block does not have were run")
	}
}
