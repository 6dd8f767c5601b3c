package coordinator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// copyStep is how many positions one piece of a scripted copy has.
const copyStep = 64

// forget drops the layers outside the block.
func (q *cached) forget(load pass.Load) {
	maps.DeleteFunc(q.layers, func(i layerIndex, _ []uint64) bool { return i < load.Layers.First || i >= load.Layers.Last })
	q.left = pass.PlanID{}
}

// copy fetches what another shard has of a sequence, piece by piece, as far as both live and neither's epoch moves on.
func (p *proc) copy(ctx context.Context, coordinator string, c pass.Copy) (pass.Begun, error) {
	key := sequenceKey{coordinator, c.Sequence}
	from := p.w.proc(c.Shard)
	first, err := p.copied(key, c)
	if err != nil {
		return pass.Begun{}, err
	}
	at, epoch := first, pass.Epoch(0)
	for err == nil && at < int(c.To) {
		if err = p.wait(ctx, p.w.piece); err != nil {
			return pass.Begun{}, err
		}
		if err = from.awake(ctx, nil); err != nil {
			break
		}
		var rows map[layerIndex][]uint64
		var log []uint64
		if rows, log, epoch, err = from.give(key, c, at, epoch); err != nil || len(rows[c.Layers.First]) == 0 {
			break
		}
		if err = p.take(key, c, at, rows, log); err != nil {
			return pass.Begun{}, err
		}
		at += len(rows[c.Layers.First])
	}
	p.w.events("%s copies positions %d-%d of layers %d-%d of %d from %s", p.name, first, at-1, c.Layers.First, c.Layers.Last-1, c.Sequence, c.Shard)
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.sequences[key]
	if q == nil || q.epoch != c.Epoch {
		return pass.Begun{}, fmt.Errorf("epoch %d of sequence %d is over", c.Epoch, c.Sequence)
	}
	return q.begun(p.blocks[q.plan]), err
}

// wait lets time pass at a shard that lives.
func (p *proc) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return p.awake(ctx, nil)
	case <-p.killed:
		return fmt.Errorf("%w: shard %s was killed", pipeline.ErrBroken, p.name)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// copied says from which position on the layers of a copy are lacking.
func (p *proc) copied(key sequenceKey, c pass.Copy) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.sequences[key]
	if q == nil || q.epoch != c.Epoch {
		return 0, fmt.Errorf("epoch %d of sequence %d has not begun here", c.Epoch, c.Sequence)
	}
	if block := p.blocks[q.plan].Layers; c.Layers.Len() == 0 || c.Layers.First < block.First || c.Layers.Last > block.Last {
		return 0, fmt.Errorf("layers %v of a block of %v", c.Layers, block)
	}
	return q.least(c.Layers), nil
}

// give hands out the next piece: positions of every layer, and of the log that ends with them, if it is there.
func (p *proc) give(key sequenceKey, c pass.Copy, at int, epoch pass.Epoch) (map[layerIndex][]uint64, []uint64, pass.Epoch, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.sequences[key]
	switch {
	case p.dead():
		return nil, nil, 0, fmt.Errorf("shard %s was killed", p.name)
	case q == nil:
		return nil, nil, 0, fmt.Errorf("shard %s has no sequence %d", p.name, c.Sequence)
	case q.epoch > c.Epoch || epoch != 0 && q.epoch != epoch:
		return nil, nil, 0, fmt.Errorf("shard %s is in epoch %d", p.name, q.epoch)
	}
	end := min(q.least(c.Layers), int(c.To), at+copyStep)
	rows := map[layerIndex][]uint64{}
	for i := c.Layers.First; i < c.Layers.Last && at < end; i++ {
		rows[i] = slices.Clone(q.layers[i][at:end])
	}
	var log []uint64
	if all := q.logs[c.Layers.Last]; at < end && len(all) >= end {
		log = slices.Clone(all[:end])
	}
	return rows, log, q.epoch, nil
}

// take stores a piece where the layers end.
func (p *proc) take(key sequenceKey, c pass.Copy, at int, rows map[layerIndex][]uint64, log []uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.sequences[key]
	if q == nil || q.epoch != c.Epoch {
		return fmt.Errorf("epoch %d of sequence %d is over", c.Epoch, c.Sequence)
	}
	for i, r := range rows {
		if have := len(q.layers[i]); have < at+len(r) {
			q.layers[i] = append(q.layers[i], r[have-at:]...)
		}
	}
	load := p.blocks[q.plan]
	if have := q.logs[load.Layers.Last]; c.Layers.Last == load.Layers.Last && !load.Last && len(log) > len(have) {
		q.logs[load.Layers.Last] = append(have, log[len(have):]...)
	}
	return nil
}

// TestAScriptedCopy: the script keeps what a copy promises.
func TestAScriptedCopy(t *testing.T) {
	inTime(t, "copy", func(t *testing.T) {
		w := newWorld(t)
		plans := []pass.PlanID{{Number: 1, Leader: "c"}, {Number: 2, Leader: "c"}}
		layers := func(first, last layerIndex) model.Layers { return model.Layers{First: first, Last: last} }
		for _, name := range []string{"a", "b"} {
			w.spawn(name)
		}
		a, b := w.proc("a"), w.proc("b")
		defer w.end()
		closed := make(chan struct{})
		close(closed)
		for _, load := range []struct {
			p *proc
			pass.Load
		}{{a, pass.Load{Plan: plans[0], Layers: layers(0, 4), First: true}}, {a, pass.Load{Plan: plans[1], Layers: layers(0, 2), First: true}}, {b, pass.Load{Plan: plans[1], Layers: layers(2, 4)}}} {
			if err := load.p.load(load.Load, closed); err != nil {
				t.Fatal(err)
			}
		}
		begin := func(p *proc, epoch pass.Epoch, plan pass.PlanID, keep token.Position) {
			if _, err := p.begin("c", pass.Begin{Sequence: 1, Epoch: epoch, Plan: plan, Keep: keep}); err != nil {
				t.Fatal(err)
			}
		}
		fetch := func(to token.Position) (pass.Begun, error) {
			return b.copy(t.Context(), "c", pass.Copy{Sequence: 1, Epoch: 2, Layers: layers(2, 4), Shard: "a", To: to})
		}
		run := func(p *proc, plan pass.PlanID, epoch pass.Epoch, turn uint32, first, count int, block model.Layers) {
			e := pass.Entry{Sequence: 1, Epoch: epoch, Turn: turn, First: token.Position(first), Count: count, Tokens: make([]token.ID, count)}
			p.compute(&flight{origin: true, Pass: &pass.Pass{Coordinator: "c", Plan: plan, Route: []pass.Stage{{Layers: block}}, Entries: []pass.Entry{e}}})
		}
		begin(a, 1, plans[0], 0)
		run(a, plans[0], 1, 0, 0, 150, layers(0, 4))
		begin(b, 2, plans[1], 0) // while a is still in epoch 1
		if got, err := fetch(100); err != nil || len(got.Cached) != 1 || got.Cached[0].Positions != 100 || len(got.Logs) != 1 || got.Logs[0].Positions != 100 {
			t.Errorf("copied %+v, %v", got, err)
		}
		run(a, plans[0], 1, 1, 150, 1, layers(0, 4))
		begin(a, 2, plans[1], 151) // and what is outside its block stays until it goes on
		got, err := fetch(151)
		if err != nil || got.Cached[0].Positions != 151 {
			t.Errorf("the tail: %+v, %v", got, err)
		}
		for i := layerIndex(2); i < 4; i++ {
			if q := b.sequences[sequenceKey{"c", 1}]; !slices.Equal(q.layers[i], a.sequences[sequenceKey{"c", 1}].layers[i]) {
				t.Errorf("layer %d has other rows", i)
			}
		}
		run(a, plans[1], 2, 0, 151, 1, layers(0, 2))
		if q := a.sequences[sequenceKey{"c", 1}]; len(q.layers) != 2 {
			t.Errorf("layers are kept: %v", slices.Sorted(maps.Keys(q.layers)))
		}
		begin(a, 3, plans[1], 151)
		if got, err := fetch(152); err == nil || got.Cached[0].Positions != 151 {
			t.Errorf("from a later epoch: %+v, %v", got, err)
		}
		a.kill()
		if got, err := fetch(152); err == nil || got.Cached[0].Positions != 151 {
			t.Errorf("from a dead shard: %+v, %v", got, err)
		}
		begin(b, 4, plans[1], 151)
		if _, err := fetch(152); err == nil || errors.Is(err, pipeline.ErrBroken) {
			t.Errorf("for an epoch that is over: %v", err)
		}
	})
}
