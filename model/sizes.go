package model

import (
	"fmt"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kvcache"
)

// Sizes is the memory, in bytes, that the parts of a model need, found from the tensors' shapes and types alone.
type Sizes struct {
	Layers    []int64 // packed weights of each layer
	Embedding int64   // the token embedding, of which the first block looks rows up in the mapped file: nothing is copied
	Head      int64   // packed output head, also where it is tied to the embedding
	Norm      int64   // final norm
	Loading   int64   // what each thread that loads maps of the file at once, beyond the packed copy

	cfg   *Config
	needs needs
}

// SizesOf measures the model of a file and its configuration.
func SizesOf(f *gguf.File, cfg *Config) (*Sizes, error) {
	s := &Sizes{cfg: cfg}
	for index := range LayerIndex(cfg.Layers) {
		l, err := describeLayer(f, cfg, index)
		if err != nil {
			return nil, fmt.Errorf("measure layer %d: %w", index, err)
		}
		s.Layers = append(s.Layers, l.bytes())
		s.add(l.matrices())
	}
	e, err := describeEnds(f, cfg, true, true)
	if err != nil {
		return nil, fmt.Errorf("measure the ends: %w", err)
	}
	s.add([]*matrix{&e.head})
	s.Embedding = int64(len(e.embedding.Data))
	s.Head = e.head.bytes()
	s.Norm = e.norm.bytes()
	return s, nil
}

func (s *Sizes) add(matrices []*matrix) {
	for _, m := range matrices {
		s.needs.add(m.Format)
		groups, bytes := m.jobGroups()
		s.Loading = max(s.Loading, int64(groups*bytes))
	}
}

// Block is the weights that a block keeps in memory.
func (s *Sizes) Block(layers Layers, head bool) int64 {
	total := int64(0)
	for _, bytes := range s.Layers[layers.First:layers.Last] {
		total += bytes
	}
	if head {
		total += s.Head + s.Norm
	}
	return total
}

// Scratch is the buffers of a block that computes up to rows positions at once with so many threads, 1 or more.
func (s *Sizes) Scratch(rows, threads int) int64 {
	return arenaBytes(s.cfg, s.needs, rows, threads)
}

// CacheBytes is what one layer keeps for one position.
func (c *Config) CacheBytes(t kvcache.Type) int64 {
	return kvcache.Bytes(t, c.KVHeads, c.HeadDim, kvcache.PagePositions) / kvcache.PagePositions
}

func (l *layer) bytes() int64 { return bytesOf(l) }

func bytesOf(p piece) int64 {
	total := int64(0)
	for _, m := range p.matrices() {
		total += m.bytes()
	}
	for _, v := range p.vectors() {
		total += v.bytes()
	}
	return total
}

// bytes is the memory of the loaded matrix with its bias.
func (m *matrix) bytes() int64 {
	total := m.packedBytes()
	for _, b := range m.biases {
		if b != nil {
			return total + 4*int64(m.Rows)
		}
	}
	return total
}
