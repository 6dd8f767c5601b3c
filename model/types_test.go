package model

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
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
	for _, tt := range []gguf.Type{gguf.F16, gguf.BF16, gguf.Q8_0, gguf.Q4_0, gguf.Q4_1, gguf.Q5_0} {
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
				limit := 0.05 // 8 bits, through four layers
				if name == "f16" || name == "bf16" {
					limit = 1e-5
				}
				if r := deviation(t, got, want, prompt); !(r <= limit) {
					t.Errorf("%s: logits deviate by %.2g of their size from those of the same weights as float32", arch, r)
				}
			}
		})
	}
}

// deviation is the size of the difference between two models' logits, as a part of their own.
func deviation(t *testing.T, got, want *chain, prompt []token.ID) float64 {
	t.Helper()
	a := got.logits(t, got.forward(t, part{got.sequence(), 0, prompt}))
	b := want.logits(t, want.forward(t, part{want.sequence(), 0, prompt}))
	difference, size := 0.0, 0.0
	for i := range a {
		difference += math.Pow(float64(a[i]-b[i]), 2)
		size += math.Pow(float64(b[i]), 2)
	}
	return math.Sqrt(difference / size)
}

// blocksOf256 is a small llama with the formats whose blocks are wider than the golden models' rows, mixed as they are in
// published files. Its embedding, to which the head is tied, is of the type given.
func blocksOf256(t testing.TB, embedding gguf.Type) *fixture {
	t.Helper()
	x := fixtureOf(t, openGolden(t, "llama"))
	for key, n := range map[string]uint32{
		"block_count": 2, "embedding_length": 256, "feed_forward_length": 512, "rope.dimension_count": 64, "vocab_size": 100,
	} {
		x.set(key, n)
	}
	x.tensors = nil
	r := rand.New(rand.NewPCG(1, 2))
	add := func(name string, tt gguf.Type, rows, cols int) {
		x.tensors = append(x.tensors, gguf.Tensor{Name: name, Dims: []int{cols, rows}, Type: tt, Data: randomBlocks(r, tt, rows*cols/256)})
	}
	add("token_embd.weight", embedding, 100, 256)
	for _, layer := range []string{"blk.0.", "blk.1."} {
		x.add(layer+"attn_norm.weight", 256).add(layer+"ffn_norm.weight", 256)
		add(layer+"attn_q.weight", gguf.Q4_K, 256, 256)
		add(layer+"attn_k.weight", gguf.Q4_K, 128, 256)
		add(layer+"attn_v.weight", gguf.Q6_K, 128, 256)
		add(layer+"attn_output.weight", gguf.Q5_K, 256, 256)
		add(layer+"ffn_gate.weight", gguf.Q5_K, 512, 256)
		add(layer+"ffn_up.weight", gguf.Q4_K, 512, 256)
		add(layer+"ffn_down.weight", gguf.Q6_K, 256, 512)
	}
	x.add("output_norm.weight", 256)
	return x
}

func TestBlocksOf256(t *testing.T) {
	prompt := []token.ID{1, 99, 7, 7, 50}
	for _, embedding := range []gguf.Type{gguf.Q6_K, gguf.Q4_K, gguf.Q5_K} {
		t.Run(embedding.String(), func(t *testing.T) {
			x := blocksOf256(t, embedding)
			file := x.parse(t)
			if embedding == gguf.Q6_K {
				cfg, err := ReadConfig(file)
				if err != nil {
					t.Fatal(err)
				}
				checkOneAnswer(t, &golden{file: file, cfg: cfg}, kvcache.F16, prompt)
			}
			for i := range x.tensors {
				x.tensors[i] = plain(t, x.tensors[i])
			}
			got := newChain(t, file, nil, kvcache.F32, Options{Threads: 1})
			want := newChain(t, x.parse(t), nil, kvcache.F32, Options{Threads: 1})
			if r := deviation(t, got, want, prompt); !(r <= 0.05) {
				t.Errorf("logits deviate by %.2g of their size from those of the same weights as float32", r)
			}
		})
	}
}

// randomBlocks are blocks of 256 values around 0, of about 0.1.
func randomBlocks(r *rand.Rand, tt gguf.Type, n int) []byte {
	_, bytes := tt.Block()
	data := make([]byte, n*bytes)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	half := func(at int, v float32) {
		var h [1]uint16
		kernel.Sets()[0].FloatsToHalves(h[:], []float32{v})
		binary.LittleEndian.PutUint16(data[at:], h[0])
	}
	for i := range n {
		switch at := i * bytes; tt {
		case gguf.Q4_K: // scales of 32 on average, nibbles of 7.5
			half(at, 0.0005)
			half(at+2, 0.0005*7.5)
		case gguf.Q5_K:
			half(at, 0.00025)
			half(at+2, 0.00025*15.5)
		case gguf.Q6_K: // scales from -128 to 127
			half(at+208, 0.0001)
		}
	}
	return data
}
