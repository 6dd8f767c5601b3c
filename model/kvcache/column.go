package kvcache

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/token"
)

// name stands for all tokens from a sequence's first to the last of a tile. It is a strong hash, whole: whoever could find
// two prompts of one name could have one answered from the pages of the other.
type name [sha256.Size]byte

// after names the tile that follows the one of this name, or, if there is none, the first.
func (n name) after(tile []token.ID) name {
	var chain [sha256.Size + 4*PagePositions]byte
	copy(chain[:], n[:])
	for i, id := range tile {
		binary.LittleEndian.PutUint32(chain[sha256.Size+4*i:], uint32(id))
	}
	return sha256.Sum256(chain[:])
}

// column is the pages of one tile in all layers, with that of the log: they are found and evicted together. Nobody writes to
// them as long as they have their name.
type column struct {
	name   name
	refs   int           // sequences that hold it
	pages  []kernel.Page // by the model's layer; none where it has not been computed here
	log    kernel.Page   // the rows that enter a layer; none if they are not kept
	before int           // that layer

	older, newer *column // among the idle ones
}

// page is where the column has the page of a layer.
func (c *column) page(layer int) *kernel.Page {
	if missing := layer + 1 - len(c.pages); missing > 0 {
		c.pages = append(c.pages, make([]kernel.Page, missing)...)
	}
	return &c.pages[layer]
}

// shelf is where columns are found by their names. Those that no sequence holds are idle, in the order in which they became
// so; as sequences leave their last columns first, none goes before those that cannot be found without it.
type shelf struct {
	mu      sync.Mutex
	columns map[name]*column
	idle    int    // columns
	ends    column // of the ring of idle ones: newer is the oldest, older the newest
	spare   []*column
	pool    *store // of layers
	logs    *store // nil if there are none
}

func newShelf() *shelf {
	h := &shelf{}
	h.clearLocked()
	return h
}

func (h *shelf) clearLocked() {
	h.columns = make(map[name]*column)
	h.idle = 0
	h.ends.older, h.ends.newer = &h.ends, &h.ends
}

// findLocked gives the column of a name, nil if there is none.
func (h *shelf) findLocked(n name) *column { return h.columns[n] }

// addLocked makes an empty column, held once.
func (h *shelf) addLocked(n name) *column {
	if len(h.spare) == 0 {
		more := make([]column, PagePositions)
		for i := range more {
			h.spare = append(h.spare, &more[i])
		}
	}
	last := len(h.spare) - 1
	c := h.spare[last]
	h.spare = h.spare[:last]
	c.name, c.refs = n, 1
	h.columns[n] = c
	return c
}

// holdLocked counts another sequence that has a column.
func (h *shelf) holdLocked(c *column) {
	if c.refs++; c.refs == 1 {
		c.older.newer, c.newer.older = c.newer, c.older
		c.older, c.newer = nil, nil
		h.countLocked(c, -1)
	}
}

// leaveLocked counts one less. Above a limit nothing is idle.
func (h *shelf) leaveLocked(c *column) {
	if c.refs--; c.refs > 0 {
		return
	}
	c.older, c.newer = h.ends.older, &h.ends
	c.older.newer, c.newer.older = c, c
	h.countLocked(c, 1)
	switch {
	case h.pool.made > h.pool.limit:
		h.dropLocked(c)
	case h.logs != nil && h.logs.made > h.logs.limit:
		h.stripLocked(c)
	}
}

// countLocked adds a column to what is idle, or takes it off.
func (h *shelf) countLocked(c *column, n int) {
	h.idle += n
	for _, p := range c.pages {
		if p != nil {
			h.pool.idle += n
		}
	}
	if c.log != nil {
		h.logs.idle += n
	}
}

// evictLocked gives back the pages of the column that has been idle for longest.
func (h *shelf) evictLocked() {
	if c := h.ends.newer; c != &h.ends {
		h.dropLocked(c)
	}
}

// dropLocked gives back the pages of an idle column.
func (h *shelf) dropLocked(c *column) {
	h.holdLocked(c)
	h.emptyLocked(c)
}

// stripLocked gives back the page of the log of an idle column, which may still be found without.
func (h *shelf) stripLocked(c *column) {
	if c.log != nil {
		h.logs.idle--
		h.logs.putLocked(&c.log)
	}
}

// shrinkLocked gives back about a quarter of the idle pages of a store whose limit has fallen, the oldest first.
func (h *shelf) shrinkLocked(s *store) {
	left := s.idle - s.idle/4 - 1
	for c := h.ends.newer; c != &h.ends && s.idle > left; {
		next := c.newer
		if s == h.logs {
			h.stripLocked(c)
		} else {
			h.dropLocked(c)
		}
		c = next
	}
}

// emptyLocked gives back the pages of a column that is held once, and takes its name from it.
func (h *shelf) emptyLocked(c *column) {
	delete(h.columns, c.name)
	for i := range c.pages {
		if c.pages[i] != nil {
			h.pool.putLocked(&c.pages[i])
		}
	}
	if c.log != nil {
		h.logs.putLocked(&c.log)
	}
	c.refs = 0
	h.spare = append(h.spare, c)
}

// Forget gives back the pages of a layer of the model that no sequence has any more.
func (p *Pool) Forget(layer int) {
	h := p.shelf
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.columns {
		if layer < len(c.pages) && c.pages[layer] != nil {
			h.pool.putLocked(&c.pages[layer])
			if c.refs == 0 {
				h.pool.idle--
			}
		}
		if c.refs == 0 && c.log == nil && !slices.ContainsFunc(c.pages, func(p kernel.Page) bool { return p != nil }) {
			h.dropLocked(c)
		}
	}
}
