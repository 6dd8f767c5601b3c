package kvcache

import (
	"fmt"
	"sync"

	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/offheap"
)

// slabBytes is how much a Pool takes from the system at once: enough for huge pages to pay.
const slabBytes = 8 << 20

// Config says what a Pool holds.
type Config struct {
	Type    Type
	KVHeads int
	HeadDim int
	Bytes   int64 // at most so much memory; it is taken as it is needed, and kept until Close
}

// Pool owns the pages of all sequences in a block. Its methods may be called from any goroutine.
type Pool struct {
	shape kernel.PageShape
	limit int // pages

	mu    sync.Mutex
	free  []kernel.Page // the last one given back is the first one taken: it is still in the CPU's caches
	slabs [][]byte
	made  int // pages cut from the slabs so far
}

// NewPool takes no memory yet.
func NewPool(cfg Config) (*Pool, error) {
	if cfg.KVHeads < 1 || cfg.HeadDim < 1 || cfg.Bytes < 0 || cfg.Type > F32 {
		return nil, fmt.Errorf("make a cache of type %v with %d heads of %d elements in %d bytes: not possible",
			uint8(cfg.Type), cfg.KVHeads, cfg.HeadDim, cfg.Bytes)
	}
	s := shape(cfg.Type, cfg.KVHeads, cfg.HeadDim)
	return &Pool{shape: s, limit: int(cfg.Bytes / int64(s.Bytes()))}, nil
}

// Shape is the layout of the pool's pages.
func (p *Pool) Shape() kernel.PageShape { return p.shape }

// Limit is the memory, in bytes, that the pool may take.
func (p *Pool) Limit() int64 { return int64(p.limit) * int64(p.shape.Bytes()) }

// Used is the memory, in bytes, of the pages that sequences hold.
func (p *Pool) Used() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(p.made-len(p.free)) * int64(p.shape.Bytes())
}

// Close gives all memory back. No sequence of the pool may be used afterwards.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var first error
	for _, slab := range p.slabs {
		if err := offheap.Free(slab); err != nil && first == nil {
			first = fmt.Errorf("close the key and value cache: %w", err)
		}
	}
	p.slabs, p.free, p.made, p.limit = nil, nil, 0, 0
	return first
}

// ensure makes n pages free, or says ErrFull.
func (p *Pool) ensureLocked(n int) error {
	if n-len(p.free) > p.limit-p.made {
		return fmt.Errorf("%w: %d pages are needed, %d of %d are free", ErrFull, n, p.limit-p.made+len(p.free), p.limit)
	}
	for len(p.free) < n {
		size := p.shape.Bytes()
		count := min(p.limit-p.made, max(1, slabBytes/size))
		slab, err := offheap.Alloc(count * size)
		if err != nil {
			return fmt.Errorf("grow the key and value cache: %w", err)
		}
		p.slabs = append(p.slabs, slab)
		for i := count - 1; i >= 0; i-- {
			p.free = append(p.free, kernel.Page(slab[i*size:(i+1)*size:(i+1)*size]))
		}
		p.made += count
	}
	return nil
}
