package kvcache

import (
	"fmt"

	"github.com/daisy-llm/daisy/model/kernel"
)

// Sequence is one sequence's keys and values in the layers of a block. It is for one goroutine at a time.
type Sequence struct {
	pool   *Pool
	layers [][]kernel.Page // (layer, tile); all layers have equally many
	length int
}

// NewSequence makes an empty sequence for a block of so many layers, perhaps none. It holds no page yet.
func (p *Pool) NewSequence(layers int) *Sequence {
	s := &Sequence{pool: p, layers: make([][]kernel.Page, layers)}
	for l := range s.layers {
		s.layers[l] = make([]kernel.Page, 0, 16)
	}
	return s
}

// Shape is the layout of the sequence's pages.
func (s *Sequence) Shape() kernel.PageShape { return s.pool.shape }

// Layers is the number of layers it was made for.
func (s *Sequence) Layers() int { return len(s.layers) }

// Len is the number of positions that are stored, in every layer.
func (s *Sequence) Len() int { return s.length }

// Pages gives the tiles of a layer, counted from the block's first. It stays valid until the sequence next reserves,
// truncates or frees.
func (s *Sequence) Pages(layer int) []kernel.Page { return s.layers[layer] }

// Reserve makes room for the positions [first, end), and drops what is stored from first on. It leaves everything as it was
// if that is not possible: ErrFull if the pool is.
func (s *Sequence) Reserve(first, end int) error {
	if first < 0 || first > s.length || end < first {
		return fmt.Errorf("reserve positions [%d, %d) of a sequence of %d: a gap", first, end, s.length)
	}
	if len(s.layers) > 0 {
		if missing := pages(end) - len(s.layers[0]); missing > 0 {
			if err := s.take(missing); err != nil {
				return err
			}
		}
	}
	s.length = first
	return nil
}

// take adds n pages to every layer.
func (s *Sequence) take(n int) error {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if err := s.pool.ensureLocked(n * len(s.layers)); err != nil {
		return err
	}
	for l := range s.layers {
		left := len(s.pool.free) - n
		s.layers[l] = append(s.layers[l], s.pool.free[left:]...)
		s.pool.free = s.pool.free[:left]
	}
	return nil
}

// Advance says that the positions up to end, which were reserved, are stored now.
func (s *Sequence) Advance(end int) {
	if end < s.length || len(s.layers) > 0 && pages(end) > len(s.layers[0]) {
		panic(fmt.Sprintf("kvcache: advance from %d to %d without room", s.length, end))
	}
	s.length = end
}

// Truncate keeps only the positions below length and gives the pages above back. A longer length changes nothing.
func (s *Sequence) Truncate(length int) {
	s.length = max(0, min(s.length, length))
	s.release(pages(s.length))
}

// Free gives all pages back. The sequence is empty then, and may be used again.
func (s *Sequence) Free() {
	s.length = 0
	s.release(0)
}

// release gives all pages but the first keep of every layer back.
func (s *Sequence) release(keep int) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	for l, have := range s.layers {
		if len(have) > keep {
			s.pool.free = append(s.pool.free, have[keep:]...)
			clear(have[keep:])
			s.layers[l] = have[:keep]
		}
	}
}
