package model

import (
	"math"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kvcache"
)

// mixed gives every kind of tensor another type, so that queries, keys and values cannot be stacked, and one product's
// input is needed in both forms.
func mixed(name string) gguf.Type {
	for _, c := range []struct {
		part string
		t    gguf.Type
	}{
		{"attn_q.", gguf.Q4_1}, {"attn_k.", gguf.F16}, {"attn_v.", gguf.Q8_0}, {"attn_output.", gguf.BF16},
		{"ffn_gate.", gguf.Q4_0}, {"ffn_up.", gguf.F32}, {"ffn_down.", gguf.Q8_0}, {"token_embd.", gguf.Q4_1}, {"output.", gguf.Q4_0},
	} {
		if strings.Contains(name, c.part) {
			return c.t
		}
	}
	return gguf.F32
}

// TestTensorTypes runs golden models with their matrices in every type. Against the same values as float32, only the
// rounding of activations to int8 remains; and it is one answer again, however it is run.
func TestTensorTypes(t *testing.T) {
	choices := map[string]func(string) gguf.Type{"mixed": mixed}
	for _, tt := range []gguf.Type{gguf.F16, gguf.BF16, gguf.Q8_0, gguf.Q4_0, gguf.Q4_1} {
		choices[tt.String()] = func(string) gguf.Type { return tt }
	}
	for name, choose := range choices {
		t.Run(name, func(t *testing.T) {
			for _, arch := range []string{"qwen2", "llama", "olmo3", "gemma3"} {
				g := openGolden(t, arch)
				x := fixtureOf(t, g).convertAll(t, choose)
				g.file = x.parse(t)
				prompt := g.Prompts["short"].TokenIDs
				if arch == "qwen2" || name == "mixed" {
					checkOneAnswer(t, g, kvcache.F16, prompt)
				}
				got := newChain(t, g.file, nil, kvcache.F32, Options{Threads: 1})
				for i := range x.tensors {
					x.tensors[i] = plain(t, x.tensors[i])
				}
				want := newChain(t, x.parse(t), nil, kvcache.F32, Options{Threads: 1})
				a := got.logits(t, got.forward(t, part{got.sequence(), 0, prompt}))
				b := want.logits(t, want.forward(t, part{want.sequence(), 0, prompt}))
				deviation, size := 0.0, 0.0
				for i := range a {
					deviation += math.Pow(float64(a[i]-b[i]), 2)
					size += math.Pow(float64(b[i]), 2)
				}
				limit := 0.05 // 8 bits, through four layers
				if name == "f16" || name == "bf16" {
					limit = 1e-5
				}
				if r := math.Sqrt(deviation / size); !(r <= limit) {
					t.Errorf("%s: logits deviate by %.2g of their size from those of the same weights as float32", arch, r)
				}
			}
		})
	}
}
