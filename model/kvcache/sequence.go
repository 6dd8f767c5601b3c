package kvcache

import (
	"fmt"
	"math"

	"github.com/daisy-llm/daisy/model/kernel"
)

// Sequence is one sequence's keys and values in the layers of a block, counted from the block's first. Each layer has a
// length of its own: where a block has taken over layers that another shard has lost, they are behind until they are
// replayed. It is for one goroutine at a time.
type Sequence struct {
	pool   *Pool
	layers []cached
}

// cached is one layer's part.
type cached struct {
	pages  []kernel.Page // by tile
	length int           // positions stored
}

// NewSequence makes an empty sequence for a block of so many layers, perhaps none. It holds no page yet.
func (p *Pool) NewSequence(layers int) *Sequence {
	s := &Sequence{pool: p, layers: make([]cached, layers)}
	for l := range s.layers {
		s.layers[l].pages = make([]kernel.Page, 0, 16)
	}
	return s
}

// Shape is the layout of the sequence's pages.
func (s *Sequence) Shape() kernel.PageShape { return s.pool.shape }

// Layers is the number of layers it was made for.
func (s *Sequence) Layers() int { return len(s.layers) }

// Len is the number of positions that are stored in every layer.
func (s *Sequence) Len() int { return s.LenIn(0, len(s.layers)) }

// LenIn is the number of positions that are stored in every one of the layers [from, to). No layer misses any: math.MaxInt
// of none.
func (s *Sequence) LenIn(from, to int) int {
	length := math.MaxInt
	for l := from; l < to; l++ {
		length = min(length, s.layers[l].length)
	}
	return length
}

// Pages gives the tiles of a layer. It stays valid until the sequence next reserves, truncates or frees.
func (s *Sequence) Pages(layer int) []kernel.Page { return s.layers[layer].pages }

// Reserve makes room for the positions [first, end) in every layer, and drops what is stored from first on. It leaves
// everything as it was if that is not possible: ErrFull if the pool is.
func (s *Sequence) Reserve(first, end int) error { return s.ReserveIn(0, len(s.layers), first, end) }

// ReserveIn is Reserve for the layers [from, to) alone.
func (s *Sequence) ReserveIn(from, to, first, end int) error {
	if length := s.LenIn(from, to); first < 0 || first > length || end < first {
		return fmt.Errorf("reserve positions [%d, %d) of a sequence of %d: a gap", first, end, length)
	}
	want, missing := pages(end), 0
	for l := from; l < to; l++ {
		missing += max(0, want-len(s.layers[l].pages))
	}
	if missing > 0 {
		if err := s.take(from, to, want, missing); err != nil {
			return err
		}
	}
	s.setLength(from, to, first)
	return nil
}

// take gives the layers [from, to) so many pages each, of which so many are missing in all.
func (s *Sequence) take(from, to, want, missing int) error {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if err := s.pool.ensureLocked(missing); err != nil {
		return err
	}
	for l := from; l < to; l++ {
		s.pool.takeLocked(&s.layers[l].pages, want)
	}
	return nil
}

// Advance says that the positions up to end, which were reserved, are stored now in every layer.
func (s *Sequence) Advance(end int) { s.AdvanceIn(0, len(s.layers), end) }

// AdvanceIn is Advance for the layers [from, to) alone.
func (s *Sequence) AdvanceIn(from, to, end int) {
	for _, c := range s.layers[from:to] {
		if end < c.length || pages(end) > len(c.pages) {
			panic(fmt.Sprintf("kvcache: advance from %d to %d without room", c.length, end))
		}
	}
	s.setLength(from, to, end)
}

func (s *Sequence) setLength(from, to, length int) {
	for l := from; l < to; l++ {
		s.layers[l].length = length
	}
}

// Truncate keeps only the positions below length in every layer and gives the pages above back. A longer length changes
// nothing.
func (s *Sequence) Truncate(length int) {
	length = max(0, length)
	for l := range s.layers {
		c := &s.layers[l]
		c.length = min(c.length, length)
		s.pool.give(&c.pages, pages(c.length))
	}
}

// Free gives all pages back. The sequence is empty then, and may be used again.
func (s *Sequence) Free() { s.Truncate(0) }

// Inherit takes over what another sequence of the same pool has stored for the layers that both have, of which this one
// must not hold any yet: layer l of it is layer l+offset of the other. It frees the rest of the other.
func (s *Sequence) Inherit(from *Sequence, offset int) {
	if from.pool != s.pool {
		panic("kvcache: inherit from another pool")
	}
	for l := range s.layers {
		if k := l + offset; k >= 0 && k < len(from.layers) {
			s.layers[l], from.layers[k] = from.layers[k], s.layers[l]
		}
	}
	from.Free()
}
