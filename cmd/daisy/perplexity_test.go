package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
)

const goldenModels = "../../model/testdata/golden"

// The figure is that of the definition, worked out one token at a time: of each chunk of n, whose first token is replaced
// where the model wants it, the tokens from n/2+1 on.
func TestPerplexity(t *testing.T) {
	text := strings.Repeat("The daisies close at night, and open when the day begins again; nobody tells them to.\n", 40)
	for name, adds := range map[string]bool{"llama": true, "qwen2": false} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(goldenModels, name, "model.gguf")
			for _, context := range []int{3, 16, 201} { // the last takes two steps
				w, err := loadWhole(t.Context(), path, wholeOptions{Context: context, Threads: 2})
				if err != nil {
					t.Fatal(err)
				}
				ids, bos, err := tokensOf(w, text)
				if err != nil {
					t.Fatal(err)
				}
				if (bos >= 0) != adds {
					t.Errorf("every chunk begins with %d", bos)
				}
				told := 0
				score, err := w.perplexity(t.Context(), ids, bos, perplexityOptions{Context: context, Chunks: 3}, func(chunk, chunks int, s perplexityScore) {
					told++
					if chunk != told || chunks != min(3, len(ids)/context) || s.count != chunk*(context-1-context/2) {
						t.Errorf("told of chunk %d of %d after %d tokens", chunk, chunks, s.count)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				want := directPerplexity(t, path, ids, bos, context, min(3, len(ids)/context))
				if got := score.ppl(); math.Abs(got-want) > 1e-9*want || want < 1.5 {
					t.Errorf("context %d: PPL = %v, want %v", context, got, want)
				}
				if d := score.deviation(); math.IsNaN(d) || d < 0 || d > 10*want {
					t.Errorf("deviation %v", d)
				}
				if _, err := w.perplexity(t.Context(), ids[:2*context-1], bos, perplexityOptions{Context: context}, nil); err == nil {
					t.Error("a text that is too short has a perplexity")
				}
				if err := w.close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// directPerplexity is the definition, with the reference kernels.
func directPerplexity(t *testing.T, path string, ids []token.ID, bos token.ID, context, chunks int) float64 {
	t.Helper()
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cfg, err := model.ReadConfig(f)
	if err != nil {
		t.Fatal(err)
	}
	block, err := model.LoadBlock(t.Context(), f, cfg, model.Layers{First: 0, Last: model.LayerIndex(cfg.Layers)}, model.Options{
		Embedding: true, Head: true, Kernels: kernel.Sets()[0], Threads: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer block.Close()
	pool, err := kvcache.NewPool(kvcache.Config{KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, Bytes: 1 << 26})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	sum, n := 0.0, 0
	x, logits := make([]float32, cfg.Hidden), make([]float32, cfg.Vocab)
	for chunk := range chunks {
		cache := pool.NewSequence(cfg.Layers)
		for position := range context - 1 {
			id := ids[chunk*context+position]
			if position == 0 && bos >= 0 {
				id = bos
			}
			if err := block.Embed(x, []token.ID{id}); err != nil {
				t.Fatal(err)
			}
			if err := block.Forward(x, []model.Entry{{Cache: cache, First: token.Position(position), Count: 1}}); err != nil {
				t.Fatal(err)
			}
			if position < context/2 {
				continue
			}
			if err := block.Head(logits, x); err != nil {
				t.Fatal(err)
			}
			total := 0.0
			for _, v := range logits {
				total += math.Exp(float64(v))
			}
			sum -= math.Log(math.Exp(float64(logits[ids[chunk*context+position+1]])) / total)
			n++
		}
		cache.Free()
	}
	return math.Exp(sum / float64(n))
}

func TestReadText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "text")
	for text, want := range map[string]string{"": "", "a": "a", "a\n": "a", "a\n\n": "a\n", "\\n\r\n": "\\n\r"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readText(path); err != nil || got != want {
			t.Errorf("%q reads as %q, %v", text, got, err)
		}
	}
	if _, err := readText(filepath.Join(path, "none")); err == nil {
		t.Error("a missing text was read")
	}
}
