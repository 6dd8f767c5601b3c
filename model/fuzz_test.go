package model

import (
	"math"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
)

// tiny is a model of one layer and a few kilobytes.
func tiny(arch string) *fixture {
	x := &fixture{arch: arch}
	x.set(".general.architecture", arch).set("block_count", uint32(1)).set("context_length", uint32(16))
	x.set("embedding_length", uint32(8)).set("feed_forward_length", uint32(12)).set("attention.head_count", uint32(2))
	x.set("attention.layer_norm_rms_epsilon", float32(1e-5)).set("attention.head_count_kv", uint32(1))
	x.set("rope.dimension_count", uint32(4)).set("attention.sliding_window", uint32(3))
	x.add("token_embd.weight", 8, 5).add("output_norm.weight", 8)
	x.add("blk.0.attn_q.weight", 8, 8).add("blk.0.attn_k.weight", 8, 4).add("blk.0.attn_v.weight", 8, 4).add("blk.0.attn_output.weight", 8, 8)
	x.add("blk.0.ffn_gate.weight", 8, 12).add("blk.0.ffn_up.weight", 8, 12).add("blk.0.ffn_down.weight", 12, 8)
	switch arch {
	case "olmo2":
		x.add("blk.0.post_attention_norm.weight", 8).add("blk.0.post_ffw_norm.weight", 8)
		x.add("blk.0.attn_q_norm.weight", 8).add("blk.0.attn_k_norm.weight", 4)
	case "gemma2", "gemma3":
		x.add("blk.0.attn_norm.weight", 8).add("blk.0.ffn_norm.weight", 8)
		x.add("blk.0.post_attention_norm.weight", 8).add("blk.0.post_ffw_norm.weight", 8)
		if arch == "gemma3" {
			x.add("blk.0.attn_q_norm.weight", 4).add("blk.0.attn_k_norm.weight", 4)
		}
	case "qwen3":
		x.add("blk.0.attn_q_norm.weight", 4).add("blk.0.attn_k_norm.weight", 4)
		fallthrough
	default:
		x.add("blk.0.attn_norm.weight", 8).add("blk.0.ffn_norm.weight", 8)
	}
	if arch == "qwen2" {
		x.add("blk.0.attn_q.bias", 8).add("blk.0.attn_k.bias", 4).add("blk.0.attn_v.bias", 4)
	}
	return x
}

// FuzzModel reads, measures, loads and runs whatever a file claims to be: it may be refused, but nothing may panic.
func FuzzModel(f *testing.F) {
	for _, arch := range Architectures() {
		f.Add(tiny(arch).bytes(f))
		f.Add(tiny(arch).set("rope.scaling.type", "yarn").set("rope.scaling.factor", float32(2)).set("attention.key_length", uint32(4)).bytes(f))
	}
	f.Fuzz(survive)
}

// survive reads, measures, loads and runs a file. It fails if what was read cannot be measured or run.
func survive(t *testing.T, data []byte) {
	file, err := gguf.Parse(data)
	if err != nil {
		return
	}
	cfg, err := ReadConfig(file)
	if err != nil {
		return
	}
	sizes, err := SizesOf(file, cfg)
	if err != nil {
		t.Fatalf("measure what was read: %v", err)
	}
	layers := Layers{0, LayerIndex(cfg.Layers)}
	if total := sizes.Block(layers, true); total <= 0 || total > int64(100*len(data)+1<<16) {
		t.Fatalf("a file of %d bytes needs %d", len(data), total)
	}
	b, err := LoadBlock(t.Context(), file, cfg, layers, Options{Embedding: true, Head: true, Threads: 1, MaxRows: 2})
	if err != nil {
		return // hostile RoPE factors
	}
	defer b.Close()
	pool, err := kvcache.NewPool(kvcache.Config{Type: kvcache.F16, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, Bytes: 1 << 28})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	ids := []token.ID{0, token.ID(cfg.Vocab - 1), 0}
	x, logits := make([]float32, len(ids)*cfg.Hidden), make([]float32, cfg.Vocab)
	if err := b.Embed(x, ids); err != nil {
		t.Fatal(err)
	}
	if err := b.Forward(x, []Entry{{Cache: pool.NewSequence(cfg.Layers), Count: len(ids)}}); err != nil {
		t.Fatal(err)
	}
	if err := b.Head(logits, x[2*cfg.Hidden:]); err != nil {
		t.Fatal(err)
	}
	s := sample.New(kernel.Best(), cfg.Vocab)
	_, _ = s.Sample(&sample.Request{Logits: logits, Params: &sample.Params{}})
}

// TestHostileNumbers puts edge values into every key, one at a time.
func TestHostileNumbers(t *testing.T) {
	values := []any{
		nil, uint32(0), uint32(1), uint32(2), uint32(3), uint32(7), uint32(1 << 31), uint64(1) << 40, uint64(math.MaxUint64), int32(-1),
		int64(math.MinInt64), float32(0), float32(-1), 1e-310, 1e300, math.NaN(), math.Inf(1), math.Inf(-1), true, false, "", "yarn", "\xff",
		[]uint32{}, []uint32{1}, []bool{}, []bool{false}, []bool{true}, []float32{1}, []string{"yarn"},
	}
	for _, arch := range Architectures() {
		x := tiny(arch)
		keys := []string{
			"attention.key_length", "attention.value_length", "attention.scale", "attention.causal", "attention.sliding_window_pattern",
			"expert_count", "embedding_scale", "residual_scale", "logit_scale", "rope.freq_base", "rope.freq_base_swa", "rope.scaling.type",
			"rope.scaling.factor", "rope.scale_linear", "rope.scaling.finetuned", "rope.scaling.original_context_length",
			"rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.attn_factor", "rope.scaling.yarn_ext_factor",
			"rope.scaling.yarn_log_multiplier", "attn_logit_softcapping", "final_logit_softcapping",
		}
		for _, kv := range x.keys {
			if key, ok := strings.CutPrefix(kv.Key, arch+"."); ok {
				keys = append(keys, key)
			}
		}
		for _, yarn := range []bool{false, true} {
			for _, key := range keys {
				for _, value := range values {
					x := tiny(arch)
					if yarn {
						x.set("rope.scaling.type", "yarn").set("rope.scaling.factor", float32(2))
					}
					survive(t, x.set(key, value).bytes(t))
				}
			}
		}
	}
}
