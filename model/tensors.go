package model

import (
	"fmt"

	"github.com/daisy-llm/daisy/model/gguf"
)

// Tensors are those of whose data a block is made, in no order: all that LoadBlock reads of the file, and what the block looks
// up in it later. embedding and head say whether it holds the ends.
func Tensors(f *gguf.File, cfg *Config, layers Layers, embedding, head bool) ([]*gguf.Tensor, error) {
	if layers.First < 0 || layers.Last < layers.First || int(layers.Last) > cfg.Layers {
		return nil, fmt.Errorf("there is no block [%d, %d) in a model of %d layers", layers.First, layers.Last, cfg.Layers)
	}
	e, err := describeEnds(f, cfg, embedding, head)
	if err != nil {
		return nil, err
	}
	pieces := []piece{e}
	for index := layers.First; index < layers.Last; index++ {
		l, err := describeLayer(f, cfg, index)
		if err != nil {
			return nil, err
		}
		pieces = append(pieces, l)
	}
	factors, _ := f.Tensor(ropeFactors)
	all := []*gguf.Tensor{e.embedding, factors}
	for _, p := range pieces {
		for _, m := range p.matrices() {
			all = append(append(all, m.sources...), m.biases...)
		}
		for _, v := range p.vectors() {
			all = append(all, v.source)
		}
	}
	var tensors []*gguf.Tensor
	for _, t := range all {
		if t != nil { // the architecture, or the file, has none there
			tensors = append(tensors, t)
		}
	}
	return tensors, nil
}
