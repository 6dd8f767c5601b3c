package kvcache

import (
	"fmt"

	"github.com/daisy-llm/daisy/model/kernel"
)

// Config says what a Pool holds.
type Config struct {
	Type    Type
	KVHeads int
	HeadDim int
	Bytes   int64 // at most so much memory; it is taken as it is needed, and kept until Close, or until Resize lowers the limit
}

// Pool owns the pages of all sequences in a shard's layers of one model.
type Pool struct {
	store
	shape kernel.PageShape
	logs  *LogPool // nil: there are none
}

// NewPool takes no memory yet.
func NewPool(cfg Config) (*Pool, error) {
	if cfg.KVHeads < 1 || cfg.HeadDim < 1 || cfg.Bytes < 0 || cfg.Type > F32 {
		return nil, fmt.Errorf("make a cache of type %v with %d heads of %d elements in %d bytes: not possible",
			uint8(cfg.Type), cfg.KVHeads, cfg.HeadDim, cfg.Bytes)
	}
	s := shape(cfg.Type, cfg.KVHeads, cfg.HeadDim)
	p := &Pool{store: store{size: s.Bytes(), shelf: newShelf(), limit: int(cfg.Bytes / int64(s.Bytes()))}, shape: s}
	p.shelf.pool = &p.store
	return p, nil
}

// Shape is the layout of the pool's pages.
func (p *Pool) Shape() kernel.PageShape { return p.shape }
