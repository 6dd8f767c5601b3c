package kvcache

import (
	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/token"
)

// Find takes over the pages that are kept of the tokens, which are the sequence's from the first on, as far as its layers
// and logs have not come yet. Layers may come to different lengths.
func (s *Sequence) Find(tokens []token.ID) {
	h := s.pool.shelf
	h.mu.Lock()
	defer h.mu.Unlock()
	var n name
	for i := range len(tokens) / PagePositions {
		n = n.after(tokens[i*PagePositions : (i+1)*PagePositions])
		var c *column
		if i < len(s.columns) {
			c = s.columns[i]
		} else if c = h.findLocked(n); c == nil {
			return
		} else {
			h.holdLocked(c)
			s.columns = append(s.columns, c)
		}
		for l := range s.layers {
			s.layers[l].find(i, *c.page(s.first + l))
		}
		if c.log != nil && c.before >= s.first && c.before <= s.first+len(s.layers) {
			s.OpenLog(c.before).find(i, c.log)
		}
		if s.leaveLocked(); i >= len(s.columns) { // nobody had a use for it
			return
		}
	}
}

// find adds the page of a column to a list that has come so far.
func (c *cached) find(tile int, p kernel.Page) {
	if p != nil && c.kept == tile && len(c.pages) == tile && c.length == tile*PagePositions {
		c.pages = append(c.pages, p)
		c.kept++
		c.length += PagePositions
	}
}

// Keep gives the tiles that all layers have whole their names, by which other sequences can find them from now on. The
// tokens are the sequence's from the first on. What another one has named meanwhile is its as well, and its own copy is
// given back.
func (s *Sequence) Keep(tokens []token.ID) {
	if len(s.layers) == 0 {
		return
	}
	whole := min(s.Len(), len(tokens)) / PagePositions
	from := whole
	for l := range s.layers {
		from = min(from, s.layers[l].kept)
	}
	log := s.Log(s.first + len(s.layers))
	if log != nil {
		from = min(from, log.kept)
	}
	if from == whole {
		return
	}
	h := s.pool.shelf
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := from; i < whole; i++ {
		c := s.columnLocked(i, tokens[i*PagePositions:(i+1)*PagePositions])
		for l := range s.layers {
			s.layers[l].keepLocked(i, c.page(s.first+l))
		}
		if log == nil {
			continue
		}
		if c.log != nil && c.before != log.before && c.refs == 1 && s.Log(c.before) == nil { // of a plan before
			h.logs.putLocked(&c.log)
		}
		if c.log == nil {
			c.before = log.before
		}
		if c.before == log.before {
			log.keepLocked(i, &c.log)
		}
	}
}

// keepLocked puts the page of a list into its place in a column, unless one is there: they are equal.
func (c *cached) keepLocked(tile int, slot *kernel.Page) {
	if c.kept != tile || c.length < (tile+1)*PagePositions {
		return
	}
	if *slot == nil {
		*slot = c.pages[tile]
	} else {
		c.store.putLocked(&c.pages[tile])
		c.pages[tile] = *slot
	}
	c.kept++
}

// columnLocked gives the column of a tile, which the sequence holds then.
func (s *Sequence) columnLocked(tile int, tokens []token.ID) *column {
	if tile < len(s.columns) {
		return s.columns[tile]
	}
	var n name
	if tile > 0 {
		n = s.columns[tile-1].name
	}
	n = n.after(tokens)
	h := s.pool.shelf
	c := h.findLocked(n)
	if c != nil {
		h.holdLocked(c)
	} else {
		c = h.addLocked(n)
	}
	s.columns = append(s.columns, c)
	return c
}

// leaveLocked lets go of the columns that none of the lists needs, the last first.
func (s *Sequence) leaveLocked() {
	needed := 0
	for l := range s.layers {
		needed = max(needed, s.layers[l].kept)
	}
	for _, l := range s.logs {
		needed = max(needed, l.kept)
	}
	for i := len(s.columns) - 1; i >= needed; i-- {
		s.pool.shelf.leaveLocked(s.columns[i])
		s.columns[i] = nil
		s.columns = s.columns[:i]
	}
}

// partLocked makes what the layers [from, to) have from a position on their own, to be written to; if these are all layers,
// then the log that follows from them as well.
func (s *Sequence) partLocked(from, to, first int) error {
	lists := make([]*cached, 0, to-from+1)
	for l := from; l < to; l++ {
		lists = append(lists, &s.layers[l])
	}
	if l := s.Log(s.first + len(s.layers)); l != nil && to-from == len(s.layers) {
		lists = append(lists, &l.cached)
	}
	return s.partListsLocked(lists, first)
}

// partListsLocked has lists drop the pages of columns from a position on. Of the page with positions on both sides they get
// a copy, or the page itself, if nobody else holds its column.
func (s *Sequence) partListsLocked(lists []*cached, first int) error {
	tile, below := first/PagePositions, first%PagePositions
	for _, c := range lists {
		if c.kept*PagePositions > first {
			c.length = min(c.length, first)
			c.shortenLocked(pages(first))
		}
	}
	s.leaveLocked()
	if below == 0 {
		return nil
	}
	if tile+1 == len(s.columns) && s.columns[tile].refs == 1 {
		s.takeBackLocked()
		return nil
	}
	for _, c := range lists {
		if c.kept <= tile {
			continue
		}
		if err := c.store.ensureLocked(1); err != nil {
			return err
		}
		shared := c.pages[tile]
		c.pages, c.kept = c.pages[:tile], tile
		c.store.takeLocked(&c.pages, tile+1)
		copy(c.pages[tile], shared)
	}
	s.leaveLocked()
	return nil
}

// takeBackLocked makes the pages of the last column, which nobody else holds, the sequence's own.
func (s *Sequence) takeBackLocked() {
	tile := len(s.columns) - 1
	c := s.columns[tile]
	s.columns[tile] = nil
	s.columns = s.columns[:tile]
	for l := range s.layers {
		if s.layers[l].kept > tile {
			s.layers[l].kept = tile
			*c.page(s.first + l) = nil
		}
	}
	for _, l := range s.logs {
		if l.kept > tile {
			l.kept = tile
			c.log = nil
		}
	}
	s.pool.shelf.emptyLocked(c)
}
