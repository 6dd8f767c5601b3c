package model

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
)

// ropeFactors is the one tensor that every block needs.
const ropeFactors = "rope_freqs.weight"

// slot is a tensor that the architecture has a place for: a matrix, or a vector where rows is 0.
type slot struct {
	name       string // in a layer: what follows "blk.N."
	rows, cols int
	optional   bool
}

// layerSlots lists the tensors of one layer.
func (c *Config) layerSlots() []slot {
	queries, kvs := c.queryDim(), c.kvDim()
	slots := []slot{
		{name: "attn_q.weight", rows: queries, cols: c.Hidden},
		{name: "attn_k.weight", rows: kvs, cols: c.Hidden},
		{name: "attn_v.weight", rows: kvs, cols: c.Hidden},
		{name: "attn_output.weight", rows: c.Hidden, cols: queries},
		{name: "ffn_gate.weight", rows: c.FeedForward, cols: c.Hidden},
		{name: "ffn_up.weight", rows: c.FeedForward, cols: c.Hidden},
		{name: "ffn_down.weight", rows: c.Hidden, cols: c.FeedForward},

		{name: "attn_q.bias", cols: queries, optional: c.Biases != QKVBiases},
		{name: "attn_k.bias", cols: kvs, optional: c.Biases != QKVBiases},
		{name: "attn_v.bias", cols: kvs, optional: c.Biases != QKVBiases},
		{name: "attn_output.bias", cols: c.Hidden, optional: true},
		{name: "ffn_gate.bias", cols: c.FeedForward, optional: true},
		{name: "ffn_up.bias", cols: c.FeedForward, optional: true},
		{name: "ffn_down.bias", cols: c.Hidden, optional: true},
	}
	if c.Norms != NormsAfter {
		slots = append(slots, slot{name: "attn_norm.weight", cols: c.Hidden}, slot{name: "ffn_norm.weight", cols: c.Hidden})
	}
	if c.Norms != NormsBefore {
		slots = append(slots, slot{name: "post_attention_norm.weight", cols: c.Hidden}, slot{name: "post_ffw_norm.weight", cols: c.Hidden})
	}
	switch c.QKNorm {
	case PerHead:
		slots = append(slots, slot{name: "attn_q_norm.weight", cols: c.HeadDim}, slot{name: "attn_k_norm.weight", cols: c.HeadDim})
	case AcrossHeads:
		slots = append(slots, slot{name: "attn_q_norm.weight", cols: queries}, slot{name: "attn_k_norm.weight", cols: kvs})
	}
	return slots
}

// endSlots lists the tensors outside the layers.
func (c *Config) endSlots() []slot {
	return []slot{
		{name: "token_embd.weight", rows: c.Vocab, cols: c.Hidden},
		{name: "output_norm.weight", cols: c.Hidden},
		{name: "output.weight", rows: c.Vocab, cols: c.Hidden, optional: true},
		{name: "output.bias", cols: c.Vocab, optional: true},
		{name: ropeFactors, cols: c.Rope.Dims / 2, optional: true},
	}
}

// layerPrefix is what the names of a layer's tensors begin with.
func layerPrefix(l LayerIndex) string { return "blk." + strconv.Itoa(int(l)) + "." }

// checkTensors checks every tensor that the model needs, and that the file has no others: a tensor we do not know is
// arithmetic we would leave out.
func (c *Config) checkTensors(f *gguf.File) error {
	known := 0
	check := func(prefix string, slots []slot) error {
		for _, s := range slots {
			s.name = prefix + s.name
			t, err := s.find(f)
			if err != nil {
				return err
			}
			if t != nil {
				known++
			}
		}
		return nil
	}
	if err := check("", c.endSlots()); err != nil {
		return err
	}
	slots := c.layerSlots()
	for l := range LayerIndex(c.Layers) {
		if err := check(layerPrefix(l), slots); err != nil {
			return err
		}
	}
	if all := f.Tensors(); known != len(all) {
		for i := range all {
			if !c.knows(all[i].Name, slots) {
				return fmt.Errorf("the tensor %.100q is not part of the architecture %s as Daisy computes it", all[i].Name, c.Architecture)
			}
		}
	}
	return nil
}

func (c *Config) knows(name string, layer []slot) bool {
	for _, s := range c.endSlots() {
		if s.name == name {
			return true
		}
	}
	rest, ok := strings.CutPrefix(name, "blk.")
	number, rest, found := strings.Cut(rest, ".")
	l, err := strconv.Atoi(number)
	if !ok || !found || err != nil || l < 0 || l >= c.Layers || strconv.Itoa(l) != number {
		return false
	}
	for _, s := range layer {
		if s.name == rest {
			return true
		}
	}
	return false
}

// find gives the slot's tensor, checked, or nil where it is optional and missing.
func (s slot) find(f *gguf.File) (*gguf.Tensor, error) {
	t, ok := f.Tensor(s.name)
	if !ok {
		if s.optional {
			return nil, nil
		}
		return nil, fmt.Errorf("the tensor %s is missing: it should be %s", s.name, s.shape())
	}
	rows := max(1, s.rows)
	if t.Cols() != s.cols || t.Rows() != rows || s.rows > 0 && len(t.Dims) > 1 && t.Dims[1] != s.rows {
		return nil, fmt.Errorf("the tensor %s is %v: it should be %s", s.name, t.Dims, s.shape())
	}
	format, ok := formatOf(t.Type)
	if !ok {
		return nil, fmt.Errorf("the tensor %s is of the type %v, which is not supported yet: Daisy computes with %s", s.name, t.Type, supportedTypes)
	}
	if s.rows == 0 && format.Quantized() {
		return nil, fmt.Errorf("the tensor %s is of the type %v: a vector must be f32, f16 or bf16", s.name, t.Type)
	}
	return t, nil
}

// shape is what the file should say, its order: columns first.
func (s slot) shape() string {
	if s.rows == 0 {
		return fmt.Sprintf("[%d]", s.cols)
	}
	return fmt.Sprintf("[%d %d]", s.cols, s.rows)
}

const supportedTypes = "f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q4_k, q5_k and q6_k"

// formatOf is the kernels' name for a tensor type.
func formatOf(t gguf.Type) (kernel.Format, bool) {
	switch t {
	case gguf.F32:
		return kernel.F32, true
	case gguf.F16:
		return kernel.F16, true
	case gguf.BF16:
		return kernel.BF16, true
	case gguf.Q8_0:
		return kernel.Q8_0, true
	case gguf.Q4_0:
		return kernel.Q4_0, true
	case gguf.Q4_1:
		return kernel.Q4_1, true
	case gguf.Q5_0:
		return kernel.Q5_0, true
	case gguf.Q4_K:
		return kernel.Q4_K, true
	case gguf.Q5_K:
		return kernel.Q5_K, true
	case gguf.Q6_K:
		return kernel.Q6_K, true
	}
	return 0, false
}
