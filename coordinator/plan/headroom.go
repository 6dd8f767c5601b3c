package plan

import (
	"math"
	"slices"
)

// Loss is what it would mean for a plan to lose one of its shards.
type Loss struct {
	Shard   string
	Missing int64 // bytes that the others would lack to hold the model; 0: the loss is survivable
}

// Survivable says whether the others can hold the model.
func (l Loss) Survivable() bool { return l.Missing == 0 }

// Headroom says for each shard of a plan, block by block, whether the other shards of the roster, spares included, could hold
// the model without it, however they would have to be cut anew.
func Headroom(plan *Plan, roster Roster, shape Shape) ([]Loss, error) {
	if err := shape.Validate(); err != nil {
		return nil, err
	}
	var losses []Loss
	for i := range plan.Stages() {
		for _, s := range plan.Holders(i) {
			left := slices.DeleteFunc(slices.Clone(roster), func(m Member) bool { return m.Name == s.Shard })
			loss := Loss{Shard: s.Shard}
			if short := newProblem(left, &shape, nil, 0).fits(); short != nil {
				loss.Missing = short.Missing
			}
			losses = append(losses, loss)
		}
	}
	return losses, nil
}

// fits says whether there is any plan at all; it is what solve finds out, without the speeds.
func (p *problem) fits() *ShortError {
	classes := p.classes(false)
	furthest := 0
	for _, w := range p.someOrders(classes) {
		if furthest = max(furthest, p.fill(classes, w)); furthest == p.items() {
			return nil
		}
	}
	if short := p.short(furthest); short.Detail == "" {
		return short
	}
	if every := p.everyOrder(classes); every != nil {
		found := p.slowest(classes, every, math.MaxInt64, true)
		if found.ok {
			return nil
		}
		furthest = found.furthest
	}
	return p.short(furthest)
}

// fill is how many items fit on the shards of one order, when each takes as many as it can.
func (p *problem) fill(classes []class, w *walk) int {
	item := 0
	for _, edges := range w.edges {
		for _, e := range edges {
			from := item
			for item < p.items() && p.need(from, item+1) <= classes[e.class].memory {
				item++
			}
		}
	}
	return item
}
