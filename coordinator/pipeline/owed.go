package pipeline

import (
	"math/bits"
	"time"
)

// owed is what a pipeline's shards owe the coordinator: results of passes, and replies to commands. The pipeline's lock is held.
type owed struct {
	commands map[uint64]time.Time // by number: since when
	number   uint64               // of the last command
	last     time.Time            // when something last came
	usual    [33]time.Duration    // of passes with so many bits in their number of positions: what they took, lately
}

// came notes a result that took from the time that its pass was sent, or that the result before it came.
func (o *owed) came(t *Ticket, now time.Time) {
	since := t.sent
	if o.last.After(since) {
		since = o.last
	}
	took, usual := now.Sub(since), &o.usual[bits.Len32(uint32(t.positions))]
	if *usual == 0 {
		*usual = took
	}
	*usual += (took - *usual) / 4
	o.last = now
}

// Owed says since when, at least, the shards have kept the coordinator waiting for what they owe it, and how long the pass
// that has waited longest was expected to take; ok is false while they owe nothing.
func (p *Pipeline) Owed() (since time.Time, expected time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, asked := range p.owed.commands {
		if !ok || asked.Before(since) {
			since, ok = asked, true
		}
	}
	var oldest *Ticket
	for _, t := range p.waiting {
		if oldest == nil || t.number < oldest.number {
			oldest = t
		}
	}
	if oldest != nil {
		expected = p.owed.usual[bits.Len32(uint32(oldest.positions))]
		if !ok || oldest.sent.Before(since) {
			since, ok = oldest.sent, true
		}
	}
	if p.owed.last.After(since) {
		since = p.owed.last
	}
	return since, expected, ok
}

// asks notes that a command is on its way, until the function that it returns is called.
func (p *Pipeline) asks() (answered func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owed.number++
	number := p.owed.number
	if p.owed.commands == nil {
		p.owed.commands = make(map[uint64]time.Time)
	}
	p.owed.commands[number] = time.Now()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.owed.commands, number)
		p.owed.last = time.Now()
	}
}
