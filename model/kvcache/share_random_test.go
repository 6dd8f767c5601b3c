package kvcache

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/daisy-llm/daisy/model/token"
)

// TestRandomSharing: whatever several sequences of few different tokens do, each has in its pages what its tokens say; all
// find room as long as they keep within what the pool was made for; and every page has its place.
func TestRandomSharing(t *testing.T) {
	const (
		sequences = 3
		tiles     = 5
		layers    = 4
	)
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := sharing(t, sequences*tiles*layers, sequences*tiles)
		// Tokens of a tile are all alike, one of two, but where a sequence goes its own way.
		var all [sequences]*chat
		word := func() token.ID { return token.ID(r.IntN(2)) }
		grow := func(first, n int) []token.ID {
			ids := make([]token.ID, n)
			tile := word()
			for i := range ids {
				if (first+i)%PagePositions == 0 {
					tile = word()
				}
				ids[i] = tile
			}
			if n > 0 && r.IntN(8) == 0 {
				ids[r.IntN(n)] = 9
			}
			return ids
		}
		blocks := [][2]int{{0, 4}, {0, 2}, {1, 3}, {2, 4}, {1, 2}}
		hits, partial := 0, 0
		for range 600 {
			i := r.IntN(sequences)
			c := all[i]
			switch what := r.IntN(10); {
			case c == nil || what == 0:
				if c != nil {
					c.s.Free()
				}
				b := blocks[r.IntN(len(blocks))]
				c = begin(t, p, b[0], b[1], grow(0, r.IntN(tiles*PagePositions)))
				all[i] = c
				if n := c.s.Len(); n > 0 {
					hits++
				} else if slices.ContainsFunc(c.s.layers, func(l cached) bool { return l.length > 0 }) {
					partial++
				}
			case what == 1: // another epoch, perhaps in another block
				n := r.IntN(len(c.tokens) + 1)
				if b := blocks[r.IntN(len(blocks))]; r.IntN(2) == 0 {
					next := p.NewSequenceAt(b[0], b[1]-b[0])
					next.Inherit(c.s)
					c.s, c.log = next, b[1]
				}
				c.s.Truncate(n)
				c.tokens = c.tokens[:n]
				c.s.OpenLog(c.log)
				c.s.Find(c.tokens)
			case what == 2: // a replay of the layers that are behind
				least := c.s.Len()
				from := slices.IndexFunc(c.s.layers, func(l cached) bool { return l.length == least })
				to := from + 1
				for to < len(c.s.layers) && c.s.layers[to].length == least {
					to++
				}
				if end := min(len(c.tokens), least+1+r.IntN(100)); end > least {
					ids := slices.Clone(c.tokens)
					if err := c.run(from, to, least, ids[least:end]...); err != nil {
						t.Fatal(err)
					}
					c.tokens = ids
				}
			default:
				first := c.s.Len()
				if r.IntN(4) == 0 {
					first = r.IntN(first + 1)
				}
				if n := min(1+r.IntN(100), tiles*PagePositions-first); n > 0 {
					c.s.CloseLogs(c.log)
					c.say(first, grow(first, n)...)
				}
			}
			for _, c := range all {
				if c != nil {
					c.check()
				}
			}
			checkPages(t, p, all[:])
		}
		for _, c := range all {
			c.s.Free()
		}
		if p.Used() != 0 || p.logs.Used() != 0 || p.Idle() == 0 || hits == 0 || partial == 0 {
			t.Errorf("seed %d: %d bytes of pages and %d of logs are used in the end, %d idle; %d hits, %d partial ones", seed, p.Used(), p.logs.Used(), p.Idle(), hits, partial)
		}
	}
}

// checkPages: every page is free, a column's, or one sequence's own; and every column is idle, or held by those that count.
func checkPages(t *testing.T, p *Pool, all []*chat) {
	t.Helper()
	seen := map[*byte]string{}
	see := func(what string, page []byte) {
		if page == nil {
			return
		}
		if before := seen[&page[0]]; before != "" {
			t.Fatalf("a page is %s and %s", before, what)
		}
		seen[&page[0]] = what
	}
	for _, s := range []*store{&p.store, &p.logs.store} {
		for _, page := range s.free {
			see("free", page)
		}
	}
	refs := map[*column]int{}
	own := func(list *cached, name string) {
		for i := list.kept; i < len(list.pages); i++ {
			see(name, list.pages[i])
		}
	}
	for _, c := range all {
		if c == nil {
			continue
		}
		needed := 0
		for _, column := range c.s.columns {
			refs[column]++
		}
		for l := range c.s.layers {
			needed = max(needed, c.s.layers[l].kept)
		}
		for _, l := range c.s.logs {
			needed = max(needed, l.kept)
			if l.before < c.s.first || l.before > c.s.first+len(c.s.layers) {
				t.Fatalf("layers [%d, %d) have a log before layer %d", c.s.first, c.s.first+len(c.s.layers), l.before)
			}
		}
		if needed != len(c.s.columns) {
			t.Fatalf("%d columns are held, %d needed", len(c.s.columns), needed)
		}
		for l := range c.s.layers {
			own(&c.s.layers[l], "a sequence's own")
			for i := range c.s.layers[l].kept {
				if &c.s.layers[l].pages[i][0] != &(*c.s.columns[i].page(c.s.first + l))[0] {
					t.Fatal("a page of a column is not the column's")
				}
			}
		}
		for _, l := range c.s.logs {
			own(&l.cached, "a log's own")
		}
	}
	idle := 0
	for name, c := range p.shelf.columns {
		if c.refs != refs[c] || c.name != name {
			t.Fatalf("a column counts %d, %d hold it", c.refs, refs[c])
		}
		if c.refs == 0 {
			idle++
		}
		for _, page := range c.pages {
			see("a column's", page)
		}
		see("a column's log", c.log)
	}
	if idle != p.shelf.idle || len(seen) != p.made+p.logs.made || p.made > p.limit || p.logs.made > p.logs.limit {
		t.Fatalf("%d columns are idle, %d counted; %d pages have a place, %d were made", idle, p.shelf.idle, len(seen), p.made+p.logs.made)
	}
}
