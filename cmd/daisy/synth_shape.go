package main

import (
	"fmt"
	"strings"

	"github.com/daisy-llm/daisy/model/gguf"
)

// synthShape is the shape of a real model, of the Llama family.
type synthShape struct {
	name        string
	like        string // whose shape it is
	layers      int
	hidden      int
	feedForward int
	heads       int
	kvHeads     int
	vocab       int
	context     int
	ropeBase    float32
	tied        bool // the head is the token embedding
}

func synthShapes() []synthShape {
	return []synthShape{
		{"1m", "none: to try things out", 2, 256, 512, 4, 2, 512, 2048, 10000, true},
		{"135m", "SmolLM2 135M", 30, 576, 1536, 9, 3, 49152, 8192, 100000, true},
		{"1b", "Llama 3.2 1B", 16, 2048, 8192, 32, 8, 128256, 131072, 500000, true},
		{"3b", "Llama 3.2 3B", 28, 3072, 8192, 24, 8, 128256, 131072, 500000, true},
		{"7b", "Llama 2 7B", 32, 4096, 11008, 32, 32, 32000, 4096, 10000, false},
		{"mistral-7b", "Mistral 7B", 32, 4096, 14336, 32, 8, 32000, 32768, 10000, false},
		{"8b", "Llama 3.1 8B", 32, 4096, 14336, 32, 8, 128256, 131072, 500000, false},
		{"13b", "Llama 2 13B", 40, 5120, 13824, 40, 40, 32000, 4096, 10000, false},
		{"70b", "Llama 3.1 70B", 80, 8192, 28672, 64, 8, 128256, 131072, 500000, false},
	}
}

// synthShapeOf finds a shape by its name.
func synthShapeOf(name string) (synthShape, error) {
	var names []string
	for _, s := range synthShapes() {
		if s.name == strings.ToLower(name) {
			return s, nil
		}
		names = append(names, s.name)
	}
	return synthShape{}, fmt.Errorf("--like %q is not known: use one of %s", name, strings.Join(names, ", "))
}

// synthShapesText lists them for --help.
func synthShapesText() string {
	var lines []string
	for _, s := range synthShapes() {
		lines = append(lines, fmt.Sprintf("  %-11s %-24s %d layers of %d, vocabulary %d", s.name, s.like, s.layers, s.hidden, s.vocab))
	}
	return strings.Join(lines, "\n")
}

// tensors lists them as a converter would, without data.
func (m *synthModel) tensors() []gguf.Tensor {
	headDim := m.hidden / m.heads
	var list []gguf.Tensor
	matrix := func(name string, cols, rows int) {
		list = append(list, gguf.Tensor{Name: name, Dims: []int{cols, rows}, Type: m.weights})
	}
	norm := func(name string) {
		list = append(list, gguf.Tensor{Name: name, Dims: []int{m.hidden}, Type: gguf.F32})
	}
	matrix("token_embd.weight", m.hidden, m.vocab)
	norm("output_norm.weight")
	if !m.tied {
		matrix("output.weight", m.hidden, m.vocab)
	}
	for l := range m.layers {
		layer := fmt.Sprintf("blk.%d.", l)
		norm(layer + "attn_norm.weight")
		matrix(layer+"attn_q.weight", m.hidden, m.heads*headDim)
		matrix(layer+"attn_k.weight", m.hidden, m.kvHeads*headDim)
		matrix(layer+"attn_v.weight", m.hidden, m.kvHeads*headDim)
		matrix(layer+"attn_output.weight", m.heads*headDim, m.hidden)
		norm(layer + "ffn_norm.weight")
		matrix(layer+"ffn_gate.weight", m.hidden, m.feedForward)
		matrix(layer+"ffn_up.weight", m.hidden, m.feedForward)
		matrix(layer+"ffn_down.weight", m.feedForward, m.hidden)
	}
	return list
}

// metadata is what readers of the file must know, the vocabulary included.
func (m *synthModel) metadata() []gguf.KeyValue {
	tokens, scores, kinds := synthVocabulary(m.vocab)
	return []gguf.KeyValue{
		{Key: "general.architecture", Value: "llama"},
		{Key: "general.name", Value: "random weights in the shape " + m.name},
		{Key: "llama.block_count", Value: uint32(m.layers)},
		{Key: "llama.context_length", Value: uint32(m.context)},
		{Key: "llama.embedding_length", Value: uint32(m.hidden)},
		{Key: "llama.feed_forward_length", Value: uint32(m.feedForward)},
		{Key: "llama.attention.head_count", Value: uint32(m.heads)},
		{Key: "llama.attention.head_count_kv", Value: uint32(m.kvHeads)},
		{Key: "llama.attention.layer_norm_rms_epsilon", Value: float32(1e-5)},
		{Key: "llama.rope.dimension_count", Value: uint32(m.hidden / m.heads)},
		{Key: "llama.rope.freq_base", Value: m.ropeBase},
		{Key: "llama.vocab_size", Value: uint32(m.vocab)},
		{Key: "tokenizer.ggml.model", Value: "llama"},
		{Key: "tokenizer.ggml.tokens", Value: tokens},
		{Key: "tokenizer.ggml.scores", Value: scores},
		{Key: "tokenizer.ggml.token_type", Value: kinds},
		{Key: "tokenizer.ggml.bos_token_id", Value: uint32(1)},
		{Key: "tokenizer.ggml.eos_token_id", Value: uint32(2)},
		{Key: "tokenizer.ggml.unknown_token_id", Value: uint32(0)},
		{Key: "tokenizer.ggml.add_bos_token", Value: true},
	}
}

// synthVocabulary makes a SentencePiece vocabulary: the special tokens, all bytes, a space, then every word of the letters
// a to z, the short ones first.
func synthVocabulary(size int) (tokens []string, scores []float32, kinds []int32) {
	const normal, unknown, control, byteToken = 1, 2, 3, 6 // of tokenizer.ggml.token_type
	add := func(text string, kind int32) {
		tokens, kinds, scores = append(tokens, text), append(kinds, kind), append(scores, -float32(len(tokens)))
	}
	add("<unk>", unknown)
	add("<s>", control)
	add("</s>", control)
	for b := range 256 {
		add(fmt.Sprintf("<0x%02X>", b), byteToken)
	}
	add("\u2581", normal)
	for n := 0; len(tokens) < size; n++ {
		add(word(n), normal)
	}
	return tokens, scores, kinds
}

// word is the n-th of a, b, ..., z, aa, ab, ...
func word(n int) string {
	letters := []byte{byte('a' + n%26)}
	for n = n/26 - 1; n >= 0; n = n/26 - 1 {
		letters = append([]byte{byte('a' + n%26)}, letters...)
	}
	return string(letters)
}
