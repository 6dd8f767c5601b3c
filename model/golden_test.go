package model

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
)

// golden is a tiny random model of one architecture with what Hugging Face's implementation computes from it in float32.
type golden struct {
	Name    string
	Shape   struct{ H, L, V int }
	Prompts map[string]struct {
		TokenIDs  []token.ID `json:"token_ids"`
		GreedyIDs []token.ID `json:"greedy_ids"`
	}
	Tolerances struct{ Logits, Hidden float64 }

	file    *gguf.File
	cfg     *Config
	tensors map[string][]float32
}

var goldenNames = []string{"gemma2", "gemma3", "gemma3_linear", "granite", "llama", "llama3", "mistral", "olmo2", "olmo3", "qwen2", "qwen3", "smollm3"}

// forEachGolden runs a test for every architecture.
func forEachGolden(t *testing.T, test func(t *testing.T, g *golden)) {
	for _, name := range goldenNames {
		t.Run(name, func(t *testing.T) { test(t, openGolden(t, name)) })
	}
}

func openGolden(t testing.TB, name string) *golden {
	t.Helper()
	directory := filepath.Join("testdata", "golden", name)
	g := &golden{}
	data, err := os.ReadFile(filepath.Join(directory, "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, g); err != nil {
		t.Fatal(err)
	}
	g.tensors = readSafetensors(t, filepath.Join(directory, "golden.safetensors"))
	if g.file, err = gguf.Open(filepath.Join(directory, "model.gguf")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.file.Close() })
	if g.cfg, err = ReadConfig(g.file); err != nil {
		t.Fatal(err)
	}
	return g
}

// readSafetensors reads the float32 tensors of a file: the length of a JSON header, the header, the data.
func readSafetensors(t testing.TB, path string) map[string][]float32 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	length := binary.LittleEndian.Uint64(data)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(data[8:8+length], &header); err != nil {
		t.Fatal(err)
	}
	data = data[8+length:]
	tensors := map[string][]float32{}
	for name, raw := range header {
		if name == "__metadata__" {
			continue
		}
		var info struct {
			Dtype   string
			Offsets [2]int `json:"data_offsets"`
		}
		if err := json.Unmarshal(raw, &info); err != nil || info.Dtype != "F32" {
			t.Fatalf("tensor %s of %s: %s", name, path, raw)
		}
		values := make([]float32, (info.Offsets[1]-info.Offsets[0])/4)
		for i := range values {
			values[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[info.Offsets[0]+4*i:]))
		}
		tensors[name] = values
	}
	return tensors
}

// near fails unless all values lie within the tolerance.
func near(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	worst, at := 0.0, 0
	for i := range want {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= worst) {
			worst, at = d, i
		}
	}
	if !(worst <= tolerance) {
		t.Errorf("%s: value %d is %v, want %v: %.2g off, at most %.2g is allowed", what, at, got[at], want[at], worst, tolerance)
	}
}

// same fails unless all bits agree.
func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: value %d is %v, want %v: not the same bits", what, i, got[i], want[i])
		}
	}
}

// chain is a model cut into blocks, run one behind the other.
type chain struct {
	cfg    *Config
	blocks []*Block
	pools  []*kvcache.Pool
}

// cuts are the first layers of the blocks after the first; nil is one block.
func newChain(t testing.TB, f *gguf.File, cuts []LayerIndex, cache kvcache.Type, o Options) *chain {
	t.Helper()
	cfg, err := ReadConfig(f)
	if err != nil {
		t.Fatal(err)
	}
	c := &chain{cfg: cfg}
	edges := append(append([]LayerIndex{0}, cuts...), LayerIndex(cfg.Layers))
	for i := range len(edges) - 1 {
		o.Embedding, o.Head = i == 0, i == len(edges)-2
		b, err := LoadBlock(t.Context(), f, cfg, Layers{edges[i], edges[i+1]}, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		pool, err := kvcache.NewPool(kvcache.Config{Type: cache, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, Bytes: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pool.Close() })
		c.blocks, c.pools = append(c.blocks, b), append(c.pools, pool)
	}
	return c
}

// close frees the chain before the test ends; closing again does nothing.
func (c *chain) close() {
	for i := range c.blocks {
		c.blocks[i].Close()
		c.pools[i].Close()
	}
}

// sequence is one sequence's caches, one a block.
type sequence []*kvcache.Sequence

func (c *chain) sequence() (s sequence) {
	for i, b := range c.blocks {
		s = append(s, c.pools[i].NewSequence(b.Layers().Len()))
	}
	return s
}

// part is one sequence's part of a batch.
type part struct {
	s     sequence
	first int
	ids   []token.ID
}

// forward gives the last layer's output for a batch, (rows, hidden).
func (c *chain) forward(t testing.TB, parts ...part) []float32 {
	t.Helper()
	var ids []token.ID
	for _, p := range parts {
		ids = append(ids, p.ids...)
	}
	x := make([]float32, len(ids)*c.cfg.Hidden)
	if err := c.blocks[0].Embed(x, ids); err != nil {
		t.Fatal(err)
	}
	for i, b := range c.blocks {
		var entries []Entry
		for _, p := range parts {
			entries = append(entries, Entry{Cache: p.s[i], First: token.Position(p.first), Count: len(p.ids)})
		}
		if err := b.Forward(x, entries); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// logits gives the logits of those rows, (rows, vocab).
func (c *chain) logits(t testing.TB, x []float32) []float32 {
	t.Helper()
	out := make([]float32, len(x)/c.cfg.Hidden*c.cfg.Vocab)
	if err := c.blocks[len(c.blocks)-1].Head(out, x); err != nil {
		t.Fatal(err)
	}
	return out
}

// last is the logits of the last row.
func (c *chain) last(t testing.TB, x []float32) []float32 {
	t.Helper()
	return c.logits(t, x[len(x)-c.cfg.Hidden:])
}

// greedy runs a prompt in chunks (0: whole) and generates n tokens; it gives them and the logits each was taken from.
func (c *chain) greedy(t testing.TB, prompt []token.ID, chunk, n int) (ids []token.ID, logits []float32) {
	t.Helper()
	s := c.sequence()
	defer func() {
		for _, cache := range s {
			cache.Free()
		}
	}()
	if chunk == 0 {
		chunk = len(prompt)
	}
	var x []float32
	position := 0
	for piece := range slices.Chunk(prompt, chunk) {
		x = c.forward(t, part{s, position, piece})
		position += len(piece)
	}
	for range n {
		step := c.last(t, x)
		logits = append(logits, step...)
		id := token.ID(kernel.Best().ArgMax(step))
		ids = append(ids, id)
		x = c.forward(t, part{s, position, []token.ID{id}})
		position++
	}
	return ids, logits
}

// everyLayer cuts a model into blocks of one layer.
func everyLayer(cfg *Config) (cuts []LayerIndex) {
	for l := 1; l < cfg.Layers; l++ {
		cuts = append(cuts, LayerIndex(l))
	}
	return cuts
}

// TestGoldenHidden follows a prompt through the model, layer by layer.
func TestGoldenHidden(t *testing.T) {
	forEachGolden(t, func(t *testing.T, g *golden) {
		c := newChain(t, g.file, everyLayer(g.cfg), kvcache.F32, Options{Threads: 1})
		s, prompt, hidden := c.sequence(), g.Prompts["short"].TokenIDs, g.cfg.Hidden
		x := make([]float32, len(prompt)*hidden)
		if err := c.blocks[0].Embed(x, prompt); err != nil {
			t.Fatal(err)
		}
		near(t, "embedding", x, g.tensors["short.embed"], g.Tolerances.Hidden)
		for l, b := range c.blocks {
			if err := b.Forward(x, []Entry{{Cache: s[l], First: 0, Count: len(prompt)}}); err != nil {
				t.Fatal(err)
			}
			near(t, "hidden after layer "+Layers{LayerIndex(l), LayerIndex(l + 1)}.String(), x,
				g.tensors["short.hidden"][l*len(x):(l+1)*len(x)], g.Tolerances.Hidden)
		}
		last := c.blocks[len(c.blocks)-1]
		normed := slices.Clone(x)
		for row := range slices.Chunk(normed, hidden) {
			kernel.Best().RMSNorm(row, row, last.ends.norm.values, g.cfg.Epsilon)
		}
		near(t, "final norm", normed, g.tensors["short.final_norm"], g.Tolerances.Hidden)
		near(t, "logits", c.logits(t, x), g.tensors["short.logits"], g.Tolerances.Logits)

		s = c.sequence()
		x = c.forward(t, part{s, 0, g.Prompts["long"].TokenIDs})
		near(t, "logits of the long prompt", c.logits(t, x[len(x)-4*hidden:]), g.tensors["long.logits_last4"], g.Tolerances.Logits)
	})
}

// TestGoldenGreedy generates from both prompts with both kinds of cache.
func TestGoldenGreedy(t *testing.T) {
	forEachGolden(t, func(t *testing.T, g *golden) {
		for _, cache := range []kvcache.Type{kvcache.F32, kvcache.F16} {
			c := newChain(t, g.file, nil, cache, Options{Threads: 1})
			for _, name := range []string{"short", "long"} {
				prompt := g.Prompts[name]
				ids, logits := c.greedy(t, prompt.TokenIDs, 0, len(prompt.GreedyIDs))
				if !slices.Equal(ids, prompt.GreedyIDs) {
					t.Errorf("%s prompt, %v cache: generated %v, want %v", name, cache, ids, prompt.GreedyIDs)
				}
				if cache == kvcache.F32 {
					near(t, name+" greedy logits", logits, g.tensors[name+".greedy_logits"], g.Tolerances.Logits)
				}
			}
		}
	})
}
