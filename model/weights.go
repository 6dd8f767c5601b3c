package model

import (
	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
)

// matrix is one product's weights. It is described first, by its tensors, which costs nothing and is enough to plan
// memory; load then packs it.
type matrix struct {
	kernel.Matrix           // its data once it is packed
	bias          []float32 // (rows); nil: none

	sources []*gguf.Tensor // stacked
	biases  []*gguf.Tensor // of each source; nil: none
}

// vector is a norm's weights, described and loaded like a matrix.
type vector struct {
	values []float32
	source *gguf.Tensor // nil: the architecture has none here
}

// layer is the weights of one transformer layer.
type layer struct {
	*shared

	attentionNorm, ffnNorm         vector // before attention and feed-forward
	attentionPostNorm, ffnPostNorm vector // after them
	queryNorm, keyNorm             vector

	qkv    []matrix // queries, keys and values, stacked: one matrix, or more where formats differ
	output matrix
	gate   matrix
	up     matrix
	down   matrix
}

func (l *layer) matrices() []*matrix {
	all := []*matrix{&l.output, &l.gate, &l.up, &l.down}
	for i := range l.qkv {
		all = append(all, &l.qkv[i])
	}
	return all
}

func (l *layer) vectors() []*vector {
	return []*vector{&l.attentionNorm, &l.ffnNorm, &l.attentionPostNorm, &l.ffnPostNorm, &l.queryNorm, &l.keyNorm}
}

// matrices and vectors are none where the block does not hold the head.
func (e *ends) matrices() []*matrix {
	if e.head.Rows == 0 {
		return nil
	}
	return []*matrix{&e.head}
}

func (e *ends) vectors() []*vector {
	if e.head.Rows == 0 {
		return nil
	}
	return []*vector{&e.norm}
}

// ends is what the first and the last block hold besides layers.
type ends struct {
	*shared // of norm and head

	embedding *gguf.Tensor // first block: rows are looked up where they lie in the file
	norm      vector       // last block
	head      matrix       // last block
}

// describer finds tensors by their slots and keeps the first error.
type describer struct {
	file   *gguf.File
	prefix string
	slots  []slot
	err    error
}

// describeLayer finds a layer's tensors.
func describeLayer(f *gguf.File, cfg *Config, index LayerIndex) (*layer, error) {
	d := &describer{file: f, prefix: layerPrefix(index), slots: cfg.layerSlots()}
	l := &layer{}
	if cfg.Norms != NormsAfter {
		l.attentionNorm.source = d.tensor("attn_norm.weight")
		l.ffnNorm.source = d.tensor("ffn_norm.weight")
	}
	if cfg.Norms != NormsBefore {
		l.attentionPostNorm.source = d.tensor("post_attention_norm.weight")
		l.ffnPostNorm.source = d.tensor("post_ffw_norm.weight")
	}
	if cfg.QKNorm != NoQKNorm {
		l.queryNorm.source = d.tensor("attn_q_norm.weight")
		l.keyNorm.source = d.tensor("attn_k_norm.weight")
	}
	for _, name := range []string{"attn_q", "attn_k", "attn_v"} {
		m := d.matrix(name)
		if last := len(l.qkv) - 1; last >= 0 && l.qkv[last].Format == m.Format {
			l.qkv[last].stack(m)
		} else {
			l.qkv = append(l.qkv, m)
		}
	}
	l.output = d.matrix("attn_output")
	l.gate = d.matrix("ffn_gate")
	l.up = d.matrix("ffn_up")
	l.down = d.matrix("ffn_down")
	return l, d.err
}

// describeEnds finds what a block at either end needs besides its layers.
func describeEnds(f *gguf.File, cfg *Config, embedding, head bool) (*ends, error) {
	d := &describer{file: f, slots: cfg.endSlots()}
	e := &ends{}
	if embedding {
		e.embedding = d.tensor("token_embd.weight")
	}
	if head {
		e.norm.source = d.tensor("output_norm.weight")
		if cfg.TiedHead {
			e.head = d.matrix("token_embd")
			e.head.biases = []*gguf.Tensor{d.tensor("output.bias")}
		} else {
			e.head = d.matrix("output")
		}
	}
	return e, d.err
}

// tensor gives a tensor by the name of its slot; nil if there is no such slot, or it is optional and empty.
func (d *describer) tensor(name string) *gguf.Tensor {
	for _, s := range d.slots {
		if s.name == name {
			s.name = d.prefix + name
			t, err := s.find(d.file)
			if err != nil && d.err == nil {
				d.err = err
			}
			return t
		}
	}
	return nil
}

// matrix describes a weight and its bias.
func (d *describer) matrix(name string) matrix {
	t := d.tensor(name + ".weight")
	if t == nil {
		return matrix{} // d.err says why
	}
	format, _ := formatOf(t.Type)
	return matrix{
		Matrix:  kernel.Matrix{Format: format, Rows: t.Rows(), Cols: t.Cols()},
		sources: []*gguf.Tensor{t},
		biases:  []*gguf.Tensor{d.tensor(name + ".bias")},
	}
}

// stack adds the rows of another matrix of the same format and width.
func (m *matrix) stack(other matrix) {
	m.Rows += other.Rows
	m.sources = append(m.sources, other.sources...)
	m.biases = append(m.biases, other.biases...)
}

// packedBytes is the memory of the packed matrix, with room to align the next.
func (m *matrix) packedBytes() int64 {
	return (int64(kernel.PackedSize(m.Format, m.Rows, m.Cols)) + 63) &^ 63
}

// loadBias gathers the biases of the stacked tensors; where only some have one, the others' are 0.
func (m *matrix) loadBias() {
	any := false
	values := make([]float32, m.Rows)
	at := 0
	for i, source := range m.sources {
		if bias := m.biases[i]; bias != nil {
			floats(values[at:at+source.Rows()], bias)
			any = true
		}
		at += source.Rows()
	}
	if any {
		m.bias = values
	}
}

func (v *vector) load() {
	if v.source != nil {
		v.values = make([]float32, v.source.Cols())
		floats(v.values, v.source)
	}
}

// bytes is the memory of the loaded vector.
func (v *vector) bytes() int64 {
	if v.source == nil {
		return 0
	}
	return 4 * int64(v.source.Cols())
}

// floats reads a vector, or one row, of any format.
func floats(dst []float32, t *gguf.Tensor) {
	format, _ := formatOf(t.Type)
	kernel.Dequantize(format, dst, t.Data)
}
