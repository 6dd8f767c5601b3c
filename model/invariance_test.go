package model

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
)

// answer is all that a prompt and a few greedy steps compute: the logits of every position, bit for bit.
func answer(t *testing.T, c *chain, prompt []token.ID, chunk int) []float32 {
	t.Helper()
	s := c.sequence()
	var all, x []float32
	position := 0
	for piece := range slices.Chunk(prompt, chunk) {
		x = c.forward(t, part{s, position, piece})
		all = append(all, c.logits(t, x)...)
		position += len(piece)
	}
	for range 3 {
		id := kernel.Best().ArgMax(all[len(all)-c.cfg.Vocab:])
		x = c.forward(t, part{s, position, []token.ID{token.ID(id)}})
		all = append(all, c.logits(t, x)...)
		position++
	}
	for _, cache := range s {
		if cache.Layers() > 0 && cache.Len() != position {
			t.Errorf("%d positions are cached, want %d", cache.Len(), position)
		}
		cache.Free()
	}
	return all
}

// variant is a way to run a model that must not change a bit.
type variant struct {
	name    string
	cuts    []LayerIndex
	chunk   int // of the prompt, as it is given
	options Options
}

func variants(cfg *Config, whole int) []variant {
	half, l := LayerIndex(cfg.Layers/2), LayerIndex(cfg.Layers)
	all := []variant{
		{"two blocks", []LayerIndex{1}, whole, Options{}},
		{"three blocks", []LayerIndex{1, half}, whole, Options{}},
		{"a block for every layer", everyLayer(cfg), 5, Options{}},
		{"empty blocks at the ends and in the middle", []LayerIndex{0, half, half, l}, whole, Options{}},
		{"one row at once", nil, whole, Options{MaxRows: 1}},
		{"seven rows at once", nil, whole, Options{MaxRows: 7}},
		{"chunks of 1", nil, 1, Options{}},
		{"chunks of 7", nil, 7, Options{}},
		{"chunks of 32", nil, 32, Options{}},
		{"chunks of 32, five rows at once", []LayerIndex{half}, 32, Options{MaxRows: 5}},
	}
	for i := range all {
		all[i].options.Threads = 1
	}
	for _, threads := range []int{2, 3} {
		all = append(all, variant{fmt.Sprintf("%d threads", threads), nil, whole, Options{Threads: threads}})
	}
	for _, set := range kernel.Sets() {
		all = append(all, variant{"kernels " + set.Name, nil, whole, Options{Kernels: set, Threads: 1}})
		all = append(all, variant{"kernels " + set.Name + ", chunks of 7, two threads", nil, 7, Options{Kernels: set, Threads: 2}})
	}
	return all
}

// checkOneAnswer compares every variant with the whole model on one thread of the reference kernels.
func checkOneAnswer(t *testing.T, g *golden, cache kvcache.Type, prompt []token.ID) {
	t.Helper()
	reference := Options{Threads: 1, Kernels: kernel.Sets()[0]}
	want := answer(t, newChain(t, g.file, nil, cache, reference), prompt, len(prompt))
	for _, v := range variants(g.cfg, len(prompt)) {
		c := newChain(t, g.file, v.cuts, cache, v.options)
		same(t, fmt.Sprintf("%s, %v cache", v.name, cache), answer(t, c, prompt, v.chunk), want)
		c.close()
	}
}

func TestOneAnswer(t *testing.T) {
	forEachGolden(t, func(t *testing.T, g *golden) {
		checkOneAnswer(t, g, kvcache.F32, g.Prompts["long"].TokenIDs)
		checkOneAnswer(t, g, kvcache.F16, g.Prompts["short"].TokenIDs)
	})
}

// TestBatches runs sequences of different lengths together, prompts beside single steps, and compares each with its own
// run alone.
func TestBatches(t *testing.T) {
	forEachGolden(t, func(t *testing.T, g *golden) {
		long, short := g.Prompts["long"].TokenIDs, g.Prompts["short"].TokenIDs
		prompts := [][]token.ID{long, short, long[3:40], short[5:6]}
		steps := [][]int{{30, 1, 1, 40}, {1, 1, 1, 7}, {0, 36, 0, 1}, {0, 0, 1, 0}} // (prompt, pass)
		c := newChain(t, g.file, []LayerIndex{2}, kvcache.F16, Options{MaxRows: 13, Threads: 2})
		want := make([][]float32, len(prompts))
		for i, prompt := range prompts {
			s := c.sequence()
			want[i] = c.forward(t, part{s, 0, prompt})
		}
		sequences, got := make([]sequence, len(prompts)), make([][]float32, len(prompts))
		for i := range prompts {
			sequences[i] = c.sequence()
		}
		for pass := range steps[0] {
			var parts []part
			var whose []int
			for i, prompt := range prompts {
				if n := steps[i][pass]; n > 0 {
					first := sequences[i][0].Len()
					parts = append(parts, part{sequences[i], first, prompt[first : first+n]})
					whose = append(whose, i)
				}
			}
			x := c.forward(t, parts...)
			for j, p := range parts {
				n := len(p.ids) * c.cfg.Hidden
				got[whose[j]] = append(got[whose[j]], x[:n]...)
				x = x[n:]
			}
		}
		for i := range prompts {
			same(t, fmt.Sprintf("sequence %d in a batch", i), got[i], want[i])
		}
	})
}

// TestTruncate evaluates again from an earlier position, in pages that others used in between.
func TestTruncate(t *testing.T) {
	forEachGolden(t, func(t *testing.T, g *golden) {
		c := newChain(t, g.file, []LayerIndex{1}, kvcache.F32, Options{})
		prompt, hidden := g.Prompts["long"].TokenIDs, c.cfg.Hidden
		s := c.sequence()
		want := c.forward(t, part{s, 0, prompt})
		for _, from := range []int{71, 64, 63, 40, 1, 0} {
			other := slices.Clone(prompt[from:])
			slices.Reverse(other)
			c.forward(t, part{s, from, other}) // overwrites the tail with something else
			if from%2 == 0 {
				for _, cache := range s {
					cache.Truncate(from)
				}
				stranger := c.sequence() // takes the pages given back, and leaves them full of its own
				c.forward(t, part{stranger, 0, other})
				for _, cache := range stranger {
					cache.Free()
				}
			}
			same(t, fmt.Sprintf("again from %d", from), c.forward(t, part{s, from, prompt[from:]}), want[from*hidden:])
		}
	})
}

// TestDecodeAllocatesNothing counts the allocations of a step: embedding, both blocks, head.
func TestDecodeAllocatesNothing(t *testing.T) {
	forEachGolden(t, func(t *testing.T, g *golden) {
		for _, cache := range []kvcache.Type{kvcache.F16, kvcache.F32} {
			c := newChain(t, g.file, []LayerIndex{2}, cache, Options{Threads: 2})
			s, ids := c.sequence(), []token.ID{5}
			x, logits := make([]float32, c.cfg.Hidden), make([]float32, c.cfg.Vocab)
			entries := [][]Entry{{{Cache: s[0], Count: 1}}, {{Cache: s[1], Count: 1}}}
			step := func() {
				if err := c.blocks[0].Embed(x, ids); err != nil {
					t.Fatal(err)
				}
				for i, b := range c.blocks {
					if err := b.Forward(x, entries[i]); err != nil {
						t.Fatal(err)
					}
					entries[i][0].First++
				}
				if err := c.blocks[1].Head(logits, x); err != nil {
					t.Fatal(err)
				}
			}
			for range 65 { // the second page is taken
				step()
			}
			// Not testing.AllocsPerRun: it leaves the two threads one processor, and they wait for each other awake.
			const steps = 50
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range steps {
				step()
			}
			runtime.ReadMemStats(&after)
			if n := (after.Mallocs - before.Mallocs) / steps; n != 0 {
				t.Errorf("%v cache: %v allocations a step", cache, n)
			}
		}
	})
}
