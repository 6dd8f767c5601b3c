package kvcache

import (
	"fmt"
	"math"
	"slices"

	"github.com/daisy-llm/daisy/model/kernel"
)

// Sequence is one sequence's keys and values in the layers of a block, and the logs that belong to them. Each layer has a
// length of its own: where a block has taken over layers that another shard has lost, they are behind until they are
// replayed. It is for one goroutine at a time.
type Sequence struct {
	pool    *Pool
	first   int // the model's layer that the block begins with
	layers  []cached
	logs    []*Log    // one, but for a while after the plan has changed
	columns []*column // whose pages the lists begin with
}

// cached is one layer's part, or a log's.
type cached struct {
	store  *store
	pages  []kernel.Page // by tile
	length int           // positions stored
	kept   int           // the first so many pages are those of columns, and not to be written to; the others are its own
}

// NewSequence makes an empty sequence for a block of so many layers, perhaps none, from the model's first. It holds no page yet.
func (p *Pool) NewSequence(layers int) *Sequence { return p.NewSequenceAt(0, layers) }

// NewSequenceAt is NewSequence for a block that begins with another of the model's layers.
func (p *Pool) NewSequenceAt(first, layers int) *Sequence {
	s := &Sequence{pool: p, first: first, layers: make([]cached, layers), columns: make([]*column, 0, 16)}
	for l := range s.layers {
		s.layers[l] = cached{store: &p.store, pages: make([]kernel.Page, 0, 16)}
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

// Pages gives the tiles of a layer. It stays valid until the sequence next reserves, truncates, keeps or frees.
func (s *Sequence) Pages(layer int) []kernel.Page { return s.layers[layer].pages }

// Reserve makes room for the positions [first, end) in every layer, and drops what is stored from first on. It takes nothing
// if that is not possible: ErrFull if the pool is.
func (s *Sequence) Reserve(first, end int) error { return s.ReserveIn(0, len(s.layers), first, end) }

// ReserveIn is Reserve for the layers [from, to) alone.
func (s *Sequence) ReserveIn(from, to, first, end int) error {
	if length := s.LenIn(from, to); first < 0 || first > length || end < first {
		return fmt.Errorf("reserve positions [%d, %d) of a sequence of %d: a gap", first, end, length)
	}
	want, missing, shared := pages(end), 0, false
	for l := from; l < to; l++ {
		c := &s.layers[l]
		missing += max(0, want-len(c.pages))
		shared = shared || c.kept*PagePositions > first
	}
	if missing > 0 || shared {
		if err := s.take(from, to, first, want, shared); err != nil {
			return err
		}
	}
	s.setLength(from, to, first)
	return nil
}

// take gives the layers [from, to) so many pages each, of which those from a position on are their own.
func (s *Sequence) take(from, to, first, want int, shared bool) error {
	s.pool.shelf.mu.Lock()
	defer s.pool.shelf.mu.Unlock()
	if shared {
		if err := s.partLocked(from, to, first); err != nil {
			return err
		}
	}
	missing := 0
	for l := from; l < to; l++ {
		missing += max(0, want-len(s.layers[l].pages))
	}
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

// Truncate keeps only the positions below length in every layer and log, and gives the pages above back. A longer length
// changes nothing.
func (s *Sequence) Truncate(length int) {
	s.pool.shelf.mu.Lock()
	defer s.pool.shelf.mu.Unlock()
	for l := range s.layers {
		s.layers[l].truncateLocked(length)
	}
	for _, l := range s.logs {
		l.truncateLocked(length)
	}
	s.leaveLocked()
}

func (c *cached) truncateLocked(length int) {
	c.length = max(0, min(c.length, length))
	c.shortenLocked(pages(c.length))
}

// shortenLocked lets a list have at most so many pages.
func (c *cached) shortenLocked(n int) {
	for i := len(c.pages) - 1; i >= max(n, c.kept); i-- {
		c.store.putLocked(&c.pages[i])
	}
	if n < len(c.pages) {
		clear(c.pages[n:])
		c.pages = c.pages[:n]
		c.kept = min(c.kept, n)
	}
}

// Free gives all pages back; those of columns stay for others to find. The sequence is empty then, and may be used again.
func (s *Sequence) Free() { s.Truncate(0) }

// Inherit takes over what another sequence of the same pool has stored for the layers that both have, of which this one
// must not hold any yet, and the logs from which a layer of its block, or the next one, can be computed. It frees the rest
// of the other.
func (s *Sequence) Inherit(from *Sequence) {
	if from.pool != s.pool || len(s.columns)+len(s.logs) > 0 {
		panic("kvcache: inherit from another pool, or twice")
	}
	for l := range s.layers {
		if k := s.first + l - from.first; k >= 0 && k < len(from.layers) {
			s.layers[l], from.layers[k] = from.layers[k], s.layers[l]
		}
	}
	from.logs = slices.DeleteFunc(from.logs, func(l *Log) bool {
		useful := l.before >= s.first && l.before <= s.first+len(s.layers) && l.length > 0
		if useful {
			l.sequence = s
			s.logs = append(s.logs, l)
		}
		return useful
	})
	s.columns, from.columns = from.columns, nil
	from.Free()
	s.Truncate(math.MaxInt) // to what its lists need of the columns
}
