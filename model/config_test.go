package model

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kvcache"
)

func TestReadConfig(t *testing.T) {
	forEachGolden(t, func(t *testing.T, g *golden) {
		c := g.cfg
		if c.Hidden != g.Shape.H || c.Layers != g.Shape.L || c.Vocab*c.Hidden != len(g.tensors["short.logits"])/10*c.Hidden {
			t.Errorf("shape: %+v", c)
		}
	})
	olmo3 := openGolden(t, "olmo3").cfg
	if olmo3.Window != 16 || !slices.Equal(olmo3.Sliding, []bool{true, true, true, false}) || !olmo3.Slides(0) || olmo3.Slides(3) {
		t.Errorf("olmo3 slides %v by %d", olmo3.Sliding, olmo3.Window)
	}
	smollm3 := openGolden(t, "smollm3").cfg
	if !smollm3.Turns(2) || smollm3.Turns(3) || smollm3.Slides(0) {
		t.Error("smollm3: RoPE of layers 2 and 3")
	}
	gemma3 := openGolden(t, "gemma3").cfg
	if gemma3.EmbeddingScale != 8 || gemma3.AttentionScale != 0.25 || gemma3.Rope.Base != 1e6 || gemma3.Rope.SlidingBase != 10000 ||
		!slices.Equal(gemma3.Sliding, []bool{true, true, true, true, true, false, true, true}) {
		t.Errorf("gemma3: %+v", gemma3)
	}
	if linear := openGolden(t, "gemma3_linear").cfg.Rope; linear.SlidingBase != 3000 || linear.Scaling.Factor != 8 || !linear.Scaling.FullOnly {
		t.Errorf("gemma3_linear: %+v", linear)
	}
	if gemma2 := openGolden(t, "gemma2").cfg; gemma2.AttentionCap != 4 || gemma2.LogitCap != 9 || !gemma2.Slides(0) || gemma2.Slides(1) {
		t.Errorf("gemma2: %+v", gemma2)
	}
	if mistral := openGolden(t, "mistral").cfg; mistral.HeadDim != 32 || mistral.TiedHead || !openGolden(t, "llama").cfg.TiedHead {
		t.Error("mistral or llama: head")
	}
}

// TestLargeGemmas: the 27B ones divide their scores by another root than the others, and no key says so.
func TestLargeGemmas(t *testing.T) {
	for _, c := range []struct {
		arch                                 string
		layers, hidden, heads, headDim, want int
	}{
		{"gemma2", 42, 3584, 16, 256, 256},
		{"gemma2", 46, 4608, 32, 128, 144},
		{"gemma3", 26, 1152, 4, 256, 256},
		{"gemma3", 48, 3840, 16, 256, 256},
		{"gemma3", 62, 5376, 32, 128, 168},
		{"llama", 62, 5376, 32, 128, 128},
		{"gemma3", 62, 8, 16, 4, 1},
	} {
		cfg := Config{Architecture: c.arch, Layers: c.layers, Hidden: c.hidden, Heads: c.heads, HeadDim: c.headDim}
		if got := cfg.usualScoreDim(); got != c.want {
			t.Errorf("%s of %d layers divides scores by the root of %d, want %d", c.arch, c.layers, got, c.want)
		}
	}
}

// TestConfigVariants changes one thing in a good file, and looks at what is read.
func TestConfigVariants(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		name   string
		arch   string
		change func(x *fixture)
		good   func(c *Config) bool // nil: refused
		want   string               // in the error
	}{
		{"unchanged", "llama", func(x *fixture) {}, func(c *Config) bool { return c.Heads == 4 && c.KVHeads == 2 }, ""},

		{"no architecture", "llama", func(x *fixture) { x.set(".general.architecture", nil) }, nil, "general.architecture is missing"},
		{"unknown architecture", "llama", func(x *fixture) { x.set(".general.architecture", "gemma7") }, nil,
			`"gemma7" is not supported: Daisy runs gemma2, gemma3, granite, llama, olmo2, qwen2, qwen3, smollm3`},
		{"long architecture", "llama", func(x *fixture) { x.set(".general.architecture", strings.Repeat("x", 1<<16)) }, nil, "is not supported"},
		{"architecture of another kind", "llama", func(x *fixture) { x.set(".general.architecture", uint32(3)) }, nil, "general.architecture"},
		{"experts", "llama", func(x *fixture) { x.set("expert_count", uint32(8)) }, nil, "mixtures of experts are not supported yet: llama.expert_count is 8"},
		{"no experts", "llama", func(x *fixture) { x.set("expert_count", uint32(0)) }, func(c *Config) bool { return true }, ""},
		{"not causal", "qwen3", func(x *fixture) { x.set("attention.causal", false) }, nil, "not causal"},

		{"no layers", "llama", func(x *fixture) { x.set("block_count", uint32(0)) }, nil, "llama.block_count is 0: it must be between 1 and 1024"},
		{"too many layers", "llama", func(x *fixture) { x.set("block_count", uint64(1)<<60) }, nil, "llama.block_count is 1152921504606846976"},
		{"layers beyond int64", "llama", func(x *fixture) { x.set("block_count", uint64(math.MaxUint64)) }, nil, "llama.block_count must be an integer"},
		{"negative layers", "llama", func(x *fixture) { x.set("block_count", int32(-4)) }, nil, "llama.block_count is -4"},
		{"layers as text", "llama", func(x *fixture) { x.set("block_count", "4") }, nil, "llama.block_count must be an integer, but is string"},
		{"one layer too many", "llama", func(x *fixture) { x.set("block_count", uint32(5)) }, nil, "the tensor blk.4.attn_q.weight is missing: it should be [64 64]"},
		{"one layer too few", "llama", func(x *fixture) { x.set("block_count", uint32(3)) }, nil, `"blk.3.attn_q.weight" is not part of the architecture llama`},
		{"layers missing", "qwen2", func(x *fixture) { x.set("block_count", nil) }, nil, "qwen2.block_count is missing"},
		{"hidden 0", "llama", func(x *fixture) { x.set("embedding_length", uint32(0)) }, nil, "llama.embedding_length is 0"},
		{"hidden huge", "llama", func(x *fixture) { x.set("embedding_length", uint32(1<<31)) }, nil, "llama.embedding_length is 2147483648"},
		{"hidden other", "llama", func(x *fixture) { x.set("embedding_length", uint32(128)) }, nil, "the tensor token_embd.weight is [64 416]: it should be [128 416]"},
		{"feed-forward other", "llama", func(x *fixture) { x.set("feed_forward_length", uint32(161)) }, nil, "the tensor blk.0.ffn_gate.weight is [64 160]: it should be [64 161]"},
		{"feed-forward by layer", "llama", func(x *fixture) { x.set("feed_forward_length", []uint32{160, 160, 160, 160}) }, func(c *Config) bool { return c.FeedForward == 160 }, ""},
		{"feed-forward differs", "llama", func(x *fixture) { x.set("feed_forward_length", []uint32{160, 160, 100, 160}) }, nil, "llama.feed_forward_length differs from layer to layer (160 in layer 0, 100 in layer 2)"},
		{"feed-forward of no layer", "llama", func(x *fixture) { x.set("feed_forward_length", []uint32{}) }, nil, "must be an integer, but is []uint32"},
		{"context 0", "llama", func(x *fixture) { x.set("context_length", uint32(0)) }, nil, "llama.context_length is 0"},
		{"context missing", "llama", func(x *fixture) { x.set("context_length", nil) }, nil, "llama.context_length is missing"},

		{"heads 0", "llama", func(x *fixture) { x.set("attention.head_count", uint32(0)) }, nil, "llama.attention.head_count is 0"},
		{"heads missing", "llama", func(x *fixture) { x.set("attention.head_count", nil) }, nil, "llama.attention.head_count is missing"},
		{"key heads 0", "llama", func(x *fixture) { x.set("attention.head_count_kv", uint32(0)) }, nil, "llama.attention.head_count_kv is 0"},
		{"key heads uneven", "llama", func(x *fixture) { x.set("attention.head_count_kv", uint32(3)) }, nil, "llama.attention.head_count_kv is 3, which 4 query heads cannot share evenly"},
		{"key heads missing", "olmo2", func(x *fixture) { x.set("attention.head_count_kv", nil) }, func(c *Config) bool { return c.KVHeads == 4 }, ""},
		{"heads do not divide", "llama", func(x *fixture) { x.set("attention.head_count", uint32(6)) }, nil, "64 hidden values cannot be divided among 6 heads"},
		{"more heads than values", "llama", func(x *fixture) {
			x.set("attention.head_count", uint32(1000)).set("attention.head_count_kv", nil)
		}, nil, "64 hidden values cannot be divided among 1000 heads"},
		{"head size 0", "llama", func(x *fixture) { x.set("attention.key_length", uint32(0)) }, nil, "llama.attention.key_length is 0"},
		{"value size differs", "mistral", func(x *fixture) { x.set("attention.value_length", uint32(16)) }, nil, "keys of 32 and values of 16"},
		{"heads too wide", "llama", func(x *fixture) {
			x.set("attention.head_count", uint32(1024)).set("attention.head_count_kv", uint32(1024)).set("attention.key_length", uint32(1024)).set("attention.value_length", uint32(1024))
		}, nil, "1024 heads of 1024 elements are more than"},
		{"attention scale", "llama", func(x *fixture) { x.set("attention.scale", float32(0.5)) }, func(c *Config) bool { return c.AttentionScale == 0.5 }, ""},
		{"attention scale 0", "granite", func(x *fixture) { x.set("attention.scale", float32(0)) }, func(c *Config) bool { return c.AttentionScale == 0.25 }, ""},
		{"attention scale negative", "granite", func(x *fixture) { x.set("attention.scale", float32(-1)) }, nil, "granite.attention.scale is -1"},

		{"epsilon missing", "llama", func(x *fixture) { x.set("attention.layer_norm_rms_epsilon", nil) }, nil, "llama.attention.layer_norm_rms_epsilon is missing"},
		{"epsilon NaN", "llama", func(x *fixture) { x.set("attention.layer_norm_rms_epsilon", nan) }, nil, "llama.attention.layer_norm_rms_epsilon is NaN"},
		{"epsilon negative", "llama", func(x *fixture) { x.set("attention.layer_norm_rms_epsilon", -1e-5) }, nil, "epsilon is -1e-05"},
		{"epsilon 0", "llama", func(x *fixture) { x.set("attention.layer_norm_rms_epsilon", 0.0) }, func(c *Config) bool { return c.Epsilon == 0 }, ""},
		{"scales missing", "granite", func(x *fixture) { x.set("embedding_scale", nil).set("residual_scale", nil).set("logit_scale", nil) },
			func(c *Config) bool { return c.EmbeddingScale == 1 && c.ResidualScale == 1 && c.LogitDivisor == 1 }, ""},
		{"logit scale 0", "granite", func(x *fixture) { x.set("logit_scale", float32(0)) }, func(c *Config) bool { return c.LogitDivisor == 1 }, ""},
		{"logit scale that rounds to 0", "granite", func(x *fixture) { x.set("logit_scale", 1e-300) }, func(c *Config) bool { return c.LogitDivisor == 1 }, ""},
		{"logit scale infinite", "granite", func(x *fixture) { x.set("logit_scale", math.Inf(1)) }, nil, "granite.logit_scale is +Inf"},

		{"window", "llama", func(x *fixture) { x.set("attention.sliding_window", uint32(8)) }, func(c *Config) bool { return c.Window == 8 && c.Slides(0) && c.Slides(3) }, ""},
		{"window 0", "olmo3", func(x *fixture) { x.set("attention.sliding_window", uint32(0)) }, func(c *Config) bool { return c.Window == 0 && !c.Slides(0) }, ""},
		{"window's usual pattern", "olmo3", func(x *fixture) { x.set("attention.sliding_window_pattern", nil) },
			func(c *Config) bool { return slices.Equal(c.Sliding, []bool{true, true, true, false}) }, ""},
		{"window with a period", "olmo3", func(x *fixture) { x.set("attention.sliding_window_pattern", uint32(2)) },
			func(c *Config) bool { return slices.Equal(c.Sliding, []bool{true, false, true, false}) }, ""},
		{"window nowhere", "olmo3", func(x *fixture) { x.set("attention.sliding_window_pattern", uint32(1)) }, func(c *Config) bool { return c.Window == 0 }, ""},
		{"gemma2's usual window", "gemma2", func(x *fixture) { x.set("attention.sliding_window", nil) }, func(c *Config) bool { return c.Window == 4096 && c.Slides(2) && !c.Slides(3) }, ""},
		{"gemma3 without a window", "gemma3", func(x *fixture) { x.set("attention.sliding_window", nil) }, func(c *Config) bool { return c.Window == 0 && !c.Slides(0) }, ""},
		{"gemma3 with another period", "gemma3_linear", func(x *fixture) { x.set("attention.sliding_window_pattern", uint32(3)) },
			func(c *Config) bool { return slices.Equal(c.Sliding, []bool{true, true, false, true, true, false}) }, ""},
		{"gemma2's usual caps", "gemma2", func(x *fixture) { x.set("attn_logit_softcapping", nil).set("final_logit_softcapping", nil) },
			func(c *Config) bool { return c.AttentionCap == 50 && c.LogitCap == 30 }, ""},
		{"no caps", "gemma2", func(x *fixture) {
			x.set("attn_logit_softcapping", float32(0)).set("final_logit_softcapping", float32(0))
		},
			func(c *Config) bool { return c.AttentionCap == 0 && c.LogitCap == 0 }, ""},
		{"caps that round to 0", "gemma2", func(x *fixture) { x.set("attn_logit_softcapping", 1e-300).set("final_logit_softcapping", 1e-300) },
			func(c *Config) bool { return c.AttentionCap == 0 && c.LogitCap == 0 }, ""},
		{"gemma3 with caps", "gemma3", func(x *fixture) { x.set("final_logit_softcapping", float32(30)) }, func(c *Config) bool { return c.LogitCap == 30 && c.AttentionCap == 0 }, ""},
		{"cap negative", "gemma3", func(x *fixture) { x.set("final_logit_softcapping", float32(-30)) }, nil, "gemma3.final_logit_softcapping is -30: it must be between 0 and"},
		{"cap infinite", "gemma2", func(x *fixture) { x.set("attn_logit_softcapping", math.Inf(1)) }, nil, "gemma2.attn_logit_softcapping is +Inf"},
		{"gemma without width", "gemma3", func(x *fixture) { x.set("embedding_length", nil) }, nil, "gemma3.embedding_length is missing"},
		{"norm missing between two", "gemma3", func(x *fixture) { x.drop("blk.3.post_ffw_norm.weight") }, nil, "the tensor blk.3.post_ffw_norm.weight is missing: it should be [64]"},
		{"pattern too short", "olmo3", func(x *fixture) { x.set("attention.sliding_window_pattern", []bool{true}) }, nil, "sliding_window_pattern has 1 entries for 4 layers"},
		{"pattern of text", "olmo3", func(x *fixture) { x.set("attention.sliding_window_pattern", "full") }, nil, "sliding_window_pattern must be an integer, but is string"},

		{"half of a head turns", "llama", func(x *fixture) { x.set("rope.dimension_count", uint32(8)) }, func(c *Config) bool { return c.Rope.Dims == 8 }, ""},
		{"odd RoPE", "llama", func(x *fixture) { x.set("rope.dimension_count", uint32(7)) }, nil, "llama.rope.dimension_count is 7: it must be even and at most the 16"},
		{"RoPE wider than a head", "llama", func(x *fixture) { x.set("rope.dimension_count", uint32(18)) }, nil, "llama.rope.dimension_count is 18"},
		{"RoPE base", "llama", func(x *fixture) { x.set("rope.freq_base", nil) }, func(c *Config) bool { return c.Rope.Base == 10000 && c.Rope.SlidingBase == 10000 }, ""},
		{"RoPE base 0", "llama", func(x *fixture) { x.set("rope.freq_base", float32(0)) }, nil, "llama.rope.freq_base is 0"},
		{"no scaling", "llama", func(x *fixture) { x.set("rope.scaling.type", "none").set("rope.scaling.factor", float32(8)) },
			func(c *Config) bool { return c.Rope.Scaling.Kind == NoScaling && c.Rope.Scaling.Factor == 1 }, ""},
		{"linear scaling", "llama", func(x *fixture) { x.set("rope.scaling.type", "linear").set("rope.scaling.factor", float32(4)) },
			func(c *Config) bool { return c.Rope.Scaling.Kind == LinearScaling && c.Rope.Scaling.Factor == 4 }, ""},
		{"linear scaling, old key", "llama", func(x *fixture) { x.set("rope.scale_linear", float32(2)) },
			func(c *Config) bool { return c.Rope.Scaling.Kind == LinearScaling && c.Rope.Scaling.Factor == 2 }, ""},
		{"linear scaling by 0", "llama", func(x *fixture) { x.set("rope.scaling.type", "linear").set("rope.scaling.factor", float32(0)) },
			func(c *Config) bool { return c.Rope.Scaling.Factor == 1 }, ""},
		{"scaling too small", "llama", func(x *fixture) { x.set("rope.scaling.type", "linear").set("rope.scaling.factor", 1e-9) }, nil, "llama.rope.scaling.factor is 1e-09"},
		{"scaling infinite", "llama", func(x *fixture) { x.set("rope.scaling.factor", math.Inf(1)) }, nil, "llama.rope.scaling.factor is +Inf"},
		{"yarn", "qwen2", func(x *fixture) {
			x.set("rope.scaling.type", "yarn").set("rope.scaling.factor", float32(4)).set("rope.scaling.original_context_length", uint32(64))
		}, func(c *Config) bool {
			s := c.Rope.Scaling
			return s.Kind == YarnScaling && s.Factor == 4 && s.OriginalContext == 64 && math.Abs(s.Magnitude-1.1386294) < 1e-6
		}, ""},
		{"yarn with its own magnitude", "olmo3", func(x *fixture) {
			x.set("rope.scaling.type", "yarn").set("rope.scaling.factor", float32(8)).set("rope.scaling.yarn_attn_factor", float32(1.25))
		}, func(c *Config) bool { return c.Rope.Scaling.Magnitude == 1.25 && c.Rope.Scaling.FullOnly }, ""},
		{"magnitude without scaling", "llama", func(x *fixture) { x.set("rope.scaling.attn_factor", float32(1.5)) },
			func(c *Config) bool { return c.Rope.Scaling.Kind == NoScaling && c.Rope.Scaling.Magnitude == 1.5 }, ""},
		{"longrope", "llama", func(x *fixture) { x.set("rope.scaling.type", "longrope") }, nil, `RoPE scaling of the kind "longrope" is not supported`},
		{"scaling of another kind", "llama", func(x *fixture) { x.set("rope.scaling.type", true) }, nil, "llama.rope.scaling.type must be a string, but is bool"},
		{"granite without RoPE", "granite", func(x *fixture) { x.set("rope.scaling.finetuned", false) }, func(c *Config) bool { return !c.Turns(0) && !c.Turns(3) }, ""},

		{"no embedding", "llama", func(x *fixture) { x.drop("token_embd.weight") }, nil, "the tensor token_embd.weight is missing"},
		{"no final norm", "llama", func(x *fixture) { x.drop("output_norm.weight") }, nil, "the tensor output_norm.weight is missing: it should be [64]"},
		{"no head", "mistral", func(x *fixture) { x.drop("output.weight") }, func(c *Config) bool { return c.TiedHead }, ""},
		{"head of another vocabulary", "mistral", func(x *fixture) { x.add("output.weight", 64, 400) }, nil, "the tensor output.weight is [64 400]: it should be [64 416]"},
		{"no norm", "llama", func(x *fixture) { x.drop("blk.2.ffn_norm.weight") }, nil, "the tensor blk.2.ffn_norm.weight is missing"},
		{"norm too long", "llama", func(x *fixture) { x.add("blk.2.ffn_norm.weight", 65) }, nil, "the tensor blk.2.ffn_norm.weight is [65]: it should be [64]"},
		{"norm as a matrix", "llama", func(x *fixture) { x.add("blk.2.ffn_norm.weight", 64, 2) }, nil, "the tensor blk.2.ffn_norm.weight is [64 2]"},
		{"transposed", "llama", func(x *fixture) { x.add("blk.1.ffn_down.weight", 64, 160) }, nil, "the tensor blk.1.ffn_down.weight is [64 160]: it should be [160 64]"},
		{"no query bias", "qwen2", func(x *fixture) { x.drop("blk.3.attn_q.bias") }, nil, "the tensor blk.3.attn_q.bias is missing: it should be [64]"},
		{"no key norm", "qwen3", func(x *fixture) { x.drop("blk.0.attn_k_norm.weight") }, nil, "the tensor blk.0.attn_k_norm.weight is missing: it should be [32]"},
		{"biases anywhere", "llama", func(x *fixture) { x.add("blk.0.ffn_up.bias", 160).add("blk.1.attn_output.bias", 64) }, func(c *Config) bool { return true }, ""},
		{"unknown tensor", "llama", func(x *fixture) { x.add("blk.0.attn_sinks.weight", 4) }, nil, `"blk.0.attn_sinks.weight" is not part of the architecture llama`},
		{"unknown tensor outside", "llama", func(x *fixture) { x.add("position_embd.weight", 64, 10) }, nil, `"position_embd.weight" is not part`},
		{"layer number with a zero", "llama", func(x *fixture) { x.add("blk.00.attn_norm.weight", 64) }, nil, `"blk.00.attn_norm.weight" is not part`},
		{"type without a kernel", "llama", func(x *fixture) {
			x.drop("blk.1.attn_k.weight")
			x.tensors = append(x.tensors, gguf.Tensor{Name: "blk.1.attn_k.weight", Dims: []int{64, 32}, Type: gguf.Q5_1, Data: make([]byte, 32*2*24)})
		}, nil, "the tensor blk.1.attn_k.weight is of the type q5_1, which is not supported yet: Daisy computes with f32, f16, bf16, "},
		{"quantised norm", "llama", func(x *fixture) {
			x.drop("blk.1.attn_norm.weight")
			x.tensors = append(x.tensors, gguf.Tensor{Name: "blk.1.attn_norm.weight", Dims: []int{64}, Type: gguf.Q8_0, Data: make([]byte, 2*34)})
		}, nil, "the tensor blk.1.attn_norm.weight is of the type q8_0: a vector must be"},
		{"factors too few", "llama3", func(x *fixture) { x.add("rope_freqs.weight", 4) }, nil, "the tensor rope_freqs.weight is [4]: it should be [8]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := fixtureOf(t, openGolden(t, c.arch))
			c.change(x)
			f := x.parse(t)
			cfg, err := ReadConfig(f)
			switch {
			case c.good == nil:
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("error %v, want one with %q", err, c.want)
				}
				if len(err.Error()) > 500 {
					t.Errorf("an error of %d bytes", len(err.Error()))
				}
			case err != nil:
				t.Fatal(err)
			case !c.good(cfg):
				t.Errorf("read %+v", cfg)
			default: // what is accepted must run
				chain := newChain(t, f, nil, kvcache.F16, Options{Threads: 1})
				chain.last(t, chain.forward(t, part{chain.sequence(), 0, openGolden(t, c.arch).Prompts["short"].TokenIDs}))
			}
		})
	}
}

func TestLoadBlockRefuses(t *testing.T) {
	g := openGolden(t, "llama3")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	zero := fixtureOf(t, g).add("rope_freqs.weight", 8)
	zero.tensors[len(zero.tensors)-1].Data = make([]byte, 8*4)
	for _, c := range []struct {
		name    string
		ctx     context.Context
		file    *gguf.File
		layers  Layers
		options Options
		want    string
	}{
		{"negative", t.Context(), g.file, Layers{-1, 2}, Options{}, "no block [-1, 2)"},
		{"reversed", t.Context(), g.file, Layers{3, 2}, Options{}, "no block [3, 2)"},
		{"beyond", t.Context(), g.file, Layers{2, 5}, Options{}, "no block [2, 5) in a model of 4 layers"},
		{"threads", t.Context(), g.file, Layers{0, 1}, Options{Threads: -1}, "-1 threads"},
		{"rows", t.Context(), g.file, Layers{0, 1}, Options{MaxRows: 1 << 30}, "rows"},
		{"cancelled", cancelled, g.file, Layers{0, 4}, Options{}, "context canceled"},
		{"cancelled, empty", cancelled, g.file, Layers{0, 0}, Options{}, "context canceled"},
		{"factors of zero", t.Context(), zero.parse(t), Layers{0, 1}, Options{}, "the tensor rope_freqs.weight holds 0 at 0"},
	} {
		b, err := LoadBlock(c.ctx, c.file, g.cfg, c.layers, c.options)
		if err == nil {
			b.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
	if _, err := LoadBlock(cancelled, g.file, g.cfg, Layers{0, 4}, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
