package shard

import (
	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/pass"
)

// duty is what a pass asks of a stage. An ordinary pass asks for the whole block. A replay fills in the layers that were
// lost with another shard: it asks for those of them that the block has.
type duty struct {
	part      model.Layers // that run; perhaps none
	from, to  int          // the same, counted from the block's first
	source    bool         // the rows begin here
	reads     bool         // in an activation log; else the tokens are embedded
	idle      bool         // a replay goes by
	positions int          // whose rows must have come with the pass
}

func (h *held) duty(p *pass.Pass) duty {
	block := h.load.Layers
	if p.Replay.Len() == 0 {
		d := duty{part: block, to: block.Len(), source: h.load.First}
		if !d.source {
			d.positions = p.Positions()
		}
		return d
	}
	first := max(block.First, min(block.Last, p.Replay.First))
	d := duty{part: model.Layers{First: first, Last: max(first, min(block.Last, p.Replay.Last))}}
	d.from, d.to = int(d.part.First-block.First), int(d.part.Last-block.First)
	switch {
	case block.Last < p.Replay.First || p.Replay.Last <= block.First:
		d.idle = true
	case len(p.Rows) == 0 && block.First <= p.Replay.First: // no stage before it had them
		d.source = true
		d.reads = p.Replay.First > 0
	default:
		d.positions = p.Positions()
	}
	return d
}

// logged says whether the rows of so many positions that enter a layer are in a log.
func (q *sequence) logged(before model.LayerIndex, positions int) bool {
	l := q.log(before)
	return l != nil && l.Len() >= positions
}

// log keeps what leaves the block, so that the layers behind it can be replayed. Where there is no room for it, or a gap,
// they will have to be replayed from further ahead: that costs time, not correctness.
func (h *held) log(p *pass.Pass, d duty) {
	last := h.load.Layers.Last
	if !logs(h.load) || d.part.Last != last {
		return
	}
	at := 0
	for i, q := range h.running {
		e := &h.entries[i]
		rows := p.Rows[at*h.cfg.Hidden : (at+e.Count)*h.cfg.Hidden]
		at += e.Count
		l := q.log(last)
		if l == nil || l.Len() < int(e.First) {
			continue
		}
		if l.Write(int(e.First), rows) != nil {
			l.Free()
		}
	}
}

// keep lets others find the pages that a pass has filled.
func (h *held) keep() {
	for i, q := range h.running {
		e := &h.entries[i]
		if (int(e.First)+e.Count)/kvcache.PagePositions > int(e.First)/kvcache.PagePositions {
			q.cache.Keep(q.tokens)
		}
	}
}
