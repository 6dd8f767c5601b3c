package model

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
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

// storedHashes are the hashes of whole models' logits as the reference kernels computed them. Sets that one machine can
// run are compared with each other elsewhere; these numbers also bind the machines, architectures and builds that never
// meet. A change that is meant to give other bits changes pass.Numerics with them.
func storedHashes(t *testing.T) map[string]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "logits.json"))
	if err != nil {
		t.Fatal(err)
	}
	var hashes map[string]string
	if err := json.Unmarshal(data, &hashes); err != nil {
		t.Fatal(err)
	}
	return hashes
}

// hashed is a model whose logits have a stored hash, with the ids that are run through it.
type hashed struct {
	file          *gguf.File
	prompt, steps []token.ID // at once, and one by one
}

// hashedModels are the golden ones, one of them in every format.
func hashedModels(t *testing.T) map[string]hashed {
	t.Helper()
	models := map[string]hashed{}
	for _, name := range goldenNames {
		g := openGolden(t, name)
		for of, prompt := range g.Prompts {
			models[name+", "+of+" prompt"] = hashed{g.file, prompt.TokenIDs, prompt.GreedyIDs[:3]}
		}
	}
	short := models["llama, short prompt"]
	prompt, steps := short.prompt, short.steps
	for _, tt := range []gguf.Type{gguf.F16, gguf.BF16, gguf.Q8_0, gguf.Q4_0, gguf.Q4_1, gguf.Q5_0} {
		file := fixtureOf(t, openGolden(t, "llama")).convertAll(t, func(string) gguf.Type { return tt }).parse(t)
		models["llama as "+tt.String()] = hashed{file, prompt, steps}
	}
	models["llama as mixed types"] = hashed{fixtureOf(t, openGolden(t, "llama")).convertAll(t, mixed).parse(t), prompt, steps}
	models["llama as q4_k, q5_k, q6_k"] = hashed{blocksOf256(t, gguf.Q6_K).parse(t), []token.ID{1, 99, 7, 7, 50}, []token.ID{3, 0, 98}}
	return models
}

// hash is the SHA-256 of the logits after every position, as little-endian float32.
func (m *hashed) hash(t *testing.T, cuts []LayerIndex, cache kvcache.Type, o Options) string {
	t.Helper()
	c := newChain(t, m.file, cuts, cache, o)
	defer c.close()
	s := c.sequence()
	logits := c.logits(t, c.forward(t, part{s, 0, m.prompt}))
	for i := range m.steps {
		logits = append(logits, c.logits(t, c.forward(t, part{s, len(m.prompt) + i, m.steps[i : i+1]}))...)
	}
	h := sha256.New()
	var b [4]byte
	for _, v := range logits {
		binary.LittleEndian.PutUint32(b[:], math.Float32bits(v))
		h.Write(b[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// TestLogitsHash holds whole models to the stored bits, with every kernel Set: the short prompts with one and two threads by
// one, two and three blocks and one for every layer; the long ones, and all with the other cache, the last of these ways.
func TestLogitsHash(t *testing.T) {
	type run struct {
		threads int
		cuts    []LayerIndex
	}
	stored, sets, seen := storedHashes(t), kernel.Sets(), 0
	for name, m := range hashedModels(t) {
		cfg, err := ReadConfig(m.file)
		if err != nil {
			t.Fatal(err)
		}
		third := LayerIndex(cfg.Layers+2) / 3
		var all []run
		for _, cuts := range [][]LayerIndex{nil, {LayerIndex(cfg.Layers / 2)}, {third, min(2*third, LayerIndex(cfg.Layers))}, everyLayer(cfg)} {
			all = append(all, run{1, cuts}, run{2, cuts})
		}
		for _, cache := range []kvcache.Type{kvcache.F16, kvcache.F32} {
			key := fmt.Sprintf("%s, %v cache", name, cache)
			seen++
			t.Run(key, func(t *testing.T) {
				for i, set := range sets {
					runs := all
					if len(m.prompt) > 20 || cache == kvcache.F32 || i == 0 && len(sets) > 1 { // the reference is slow
						runs = all[len(all)-1:]
					}
					for _, r := range runs {
						if got := m.hash(t, r.cuts, cache, Options{Kernels: set, Threads: r.threads}); got != stored[key] {
							t.Errorf("kernels %s, %d threads, %d blocks: the logits have the hash\n%s\nand not the stored\n%s",
								set.Name, r.threads, len(r.cuts)+1, got, stored[key])
						}
					}
				}
			})
		}
	}
	if seen != len(stored) {
		t.Errorf("%d hashes are stored, %d were computed", len(stored), seen)
	}
}

// TestLogitsHashBites: the hash sees one bit of one weight, and one token.
func TestLogitsHashBites(t *testing.T) {
	models := hashedModels(t)
	m, o := models["llama as q4_1"], Options{Threads: 1}
	want := m.hash(t, nil, kvcache.F16, o)
	other := m
	other.steps = slices.Clone(m.steps)
	other.steps[2]++
	if other.hash(t, nil, kvcache.F16, o) == want {
		t.Error("the hash does not see the last token")
	}
	x := fixtureOf(t, &golden{file: m.file, cfg: openGolden(t, "llama").cfg})
	for i := range x.tensors {
		if x.tensors[i].Name == "blk.3.ffn_down.weight" {
			x.tensors[i].Data = slices.Clone(x.tensors[i].Data)
			x.tensors[i].Data[0] ^= 1 // of the scale of its first block
		}
	}
	other = m
	other.file = x.parse(t)
	if other.hash(t, nil, kvcache.F16, o) == want {
		t.Error("the hash does not see a bit of a weight")
	}
}
