package rpc_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

var goldenNames = []string{"gemma2", "gemma3", "gemma3_linear", "granite", "llama", "llama3", "mistral", "olmo2", "olmo3", "qwen2", "qwen3", "smollm3"}

// prompt runs a prompt in chunks and returns the logits of all its positions.
func (l *line) prompt(t *testing.T, id pass.SequenceID, ids []token.ID, chunk int) []float32 {
	t.Helper()
	var logits []float32
	l.begin(t, id, len(ids))
	for first := 0; first < len(ids); first += chunk {
		part := ids[first:min(first+chunk, len(ids))]
		out := l.run(t, id, token.Position(first), part, pass.Wants{Logits: true})
		if out.Refused != nil {
			t.Fatal(out.Refused)
		}
		if len(out.Logits) != len(part)*l.vocab {
			t.Fatalf("%d logits for %d positions", len(out.Logits), len(part))
		}
		logits = append(logits, out.Logits...)
	}
	if err := l.Release(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return logits
}

// greedy goes on from a prompt by the highest logit.
func (l *line) greedy(t *testing.T, id pass.SequenceID, prompt []token.ID, n int) []token.ID {
	t.Helper()
	l.begin(t, id, len(prompt))
	wants := pass.Wants{Token: true}
	out := l.run(t, id, 0, prompt, wants)
	ids := []token.ID{}
	for {
		if out.Refused != nil {
			t.Fatal(out.Refused)
		}
		ids = append(ids, out.Choice.Token)
		if len(ids) == n {
			break
		}
		out = l.run(t, id, token.Position(len(prompt)+len(ids)-1), ids[len(ids)-1:], wants)
	}
	if err := l.Release(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return ids
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// TestOneAnswer: however the model is cut and the prompt is chunked, over real connections, the bits are the same, and
// the greedy ids are those of the reference implementation.
func TestOneAnswer(t *testing.T) {
	for _, name := range goldenNames {
		t.Run(name, func(t *testing.T) {
			g := openGolden(t, name)
			for _, cache := range []kvcache.Type{kvcache.F32, kvcache.F16} {
				reference := map[string][]float32{}
				for _, stages := range []int{1, 2, 3, g.Shape.L} {
					t.Run(fmt.Sprintf("%v/%d stages", cache, stages), func(t *testing.T) {
						l := startLine(t, g.path, stages, cache, workerOptions{})
						id := pass.SequenceID(0)
						for kind, prompt := range g.Prompts {
							if len(prompt.TokenIDs)+len(prompt.GreedyIDs) > 256 {
								continue
							}
							for _, chunk := range []int{len(prompt.TokenIDs), 1, 7, 32} {
								id++
								logits := l.prompt(t, id, prompt.TokenIDs, chunk)
								if want := reference[kind]; want == nil {
									reference[kind] = logits
								} else if !sameBits(logits, want) {
									t.Errorf("%s prompt in chunks of %d: other bits", kind, chunk)
								}
							}
							id++
							if got := l.greedy(t, id, prompt.TokenIDs, len(prompt.GreedyIDs)); !slices.Equal(got, prompt.GreedyIDs) {
								t.Errorf("%s prompt: greedy ids %v, want %v", kind, got, prompt.GreedyIDs)
							}
						}
						for _, w := range l.workers {
							blocks, _, err := w.shard.Blocks(t.Context())
							if err != nil || len(blocks) != 1 || blocks[0].Sequences != 0 || blocks[0].Cached != 0 {
								t.Errorf("shard %s keeps %+v after every release (%v)", w.name, blocks, err)
							}
						}
					})
				}
			}
		})
	}
}
