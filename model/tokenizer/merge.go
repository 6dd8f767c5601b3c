package tokenizer

import (
	"github.com/daisy-llm/daisy/model/token"
)

// symbol is a stretch of text on its way to becoming a token. Symbols form a list in the order of the text.
type symbol struct {
	start, end int // bytes of the text; end 0 once merged into the symbol before
	prev, next int32
	id         token.ID // none if no token stands for it
}

// candidate is a pair of neighbours that may merge. It is stale when either has changed since.
type candidate struct {
	order uint64 // lower merges first: rank, then the left symbol's index
	end   int    // where the right symbol ends
	id    token.ID
}

// pairing ranks the union of two neighbours; lower ranks merge first.
type pairing interface {
	union(left, right *symbol) (rank uint32, id token.ID, ok bool)
}

// merger merges neighbours, the best pair of all first and the leftmost among equals, until no pair is left. It keeps its
// memory between texts, and takes n log n time for n symbols.
type merger struct {
	symbols []symbol
	queue   []candidate // a heap, the lowest order first
}

// reset forgets the text before.
func (m *merger) reset() { m.symbols, m.queue = m.symbols[:0], m.queue[:0] }

// add appends the symbol of the next bytes of the text.
func (m *merger) add(start, end int, id token.ID) {
	n := int32(len(m.symbols))
	m.symbols = append(m.symbols, symbol{start: start, end: end, prev: n - 1, next: n + 1, id: id})
}

// run merges. Then the symbols that are left are those whose end is not 0.
func (m *merger) run(p pairing) {
	for i := 1; i < len(m.symbols); i++ {
		m.offer(p, int32(i-1), int32(i))
	}
	for len(m.queue) > 0 {
		c := m.pop()
		l := int32(uint32(c.order))
		left := &m.symbols[l]
		if left.end == 0 || int(left.next) >= len(m.symbols) || m.symbols[left.next].end != c.end {
			continue
		}
		right := &m.symbols[left.next]
		left.end, left.next, left.id = right.end, right.next, c.id
		right.end = 0
		if int(left.next) < len(m.symbols) {
			m.symbols[left.next].prev = l
			m.offer(p, l, left.next)
		}
		if left.prev >= 0 {
			m.offer(p, left.prev, l)
		}
	}
}

func (m *merger) offer(p pairing, left, right int32) {
	r := &m.symbols[right]
	if rank, id, ok := p.union(&m.symbols[left], r); ok {
		m.push(candidate{order: uint64(rank)<<32 | uint64(uint32(left)), end: r.end, id: id})
	}
}

func (m *merger) push(c candidate) {
	q := append(m.queue, c)
	i := len(q) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if q[parent].order <= c.order {
			break
		}
		q[i] = q[parent]
		i = parent
	}
	q[i] = c
	m.queue = q
}

func (m *merger) pop() candidate {
	q := m.queue
	top, last := q[0], q[len(q)-1]
	q = q[:len(q)-1]
	for i := 0; len(q) > 0; {
		child := 2*i + 1
		if child+1 < len(q) && q[child+1].order < q[child].order {
			child++
		}
		if child >= len(q) || last.order <= q[child].order {
			q[i] = last
			break
		}
		q[i] = q[child]
		i = child
	}
	m.queue = q
	return top
}
