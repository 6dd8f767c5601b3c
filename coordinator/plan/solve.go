package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/daisy-llm/daisy/pass"
)

// Options are what an operator may ask of a plan.
type Options struct {
	Leader string // the coordinator that plans; part of the plan's ID
	// Stages asks for exactly so many stages, each with at least one layer, and the head alone on the last one only where
	// memory leaves no other way; never more than the model has layers. 0: as many as help.
	Stages int
	// Keep asks, once shards were lost, for a plan in which the others hold what they hold by the previous one at least, so that
	// nothing of it is loaded or computed again: their blocks only grow into what was lost, or spares take it. A previous plan
	// that can go on goes on, however good another might be. Where memory does not allow it, Keep asks for nothing.
	Keep bool
}

// Solve plans the pipeline whose slowest stage is fastest, and among those the one that is fastest as a whole, under
// each shard's memory. A stage takes the bytes it reads for a token, over its shard's bandwidth. Among equally fast
// pipelines Solve prefers, in this order: more shards that share the work, fewer layers moved from where previous has
// them, more even stages. Shards that would only slow the pipeline down, or are too small for any layer, are spares.
//
// A previous plan, of the same model, whose shards are all still there keeps working unless the new one is faster by
// more than 15 %, in its slowest stage or, with that no slower, as a whole. Then Solve returns previous itself, or a
// copy with the same ID if only the spares have changed.
//
// The order of the shards is free. With few shards, or many that are alike, Solve looks at every order of every
// subset, so that it finds a pipeline wherever there is one, and the best one. With many different ones (more than
// about 10 of 32 layers, or 6 of 256) it looks at orders by speed, by memory and by name, with each shard in turn on
// the head: what it finds is best for layers of one size, and may be missed only where layers differ.
//
// Errors: ErrNoShards, ErrFewShards, *ShortError, or what Shape.Validate says.
func Solve(roster Roster, shape Shape, previous *Plan, opts Options) (*Plan, error) {
	if err := shape.Validate(); err != nil {
		return nil, err
	}
	if opts.Stages < 0 || opts.Stages > pass.MaxStages {
		return nil, fmt.Errorf("plan: %d stages are not possible: ask for 1 to %d, or 0 for as many as help", opts.Stages, pass.MaxStages)
	}
	if previous != nil && (previous.Layers != len(shape.Layers) || previous.Model != shape.Model) {
		previous = nil
	}
	p := newProblem(roster, &shape, previous, opts.Stages)
	p.keeping = opts.Keep && opts.Stages == 0
	if len(p.shards) == 0 {
		return nil, ErrNoShards
	}
	if opts.Stages > len(p.shards) {
		return nil, fmt.Errorf("%w: %d stages asked for, %d shards there", ErrFewShards, opts.Stages, len(p.shards))
	}
	best, classes, err := p.solve()
	if err != nil {
		return nil, err
	}
	stages := p.appoint(best.cuts, classes)
	if kept := p.keep(previous, best.cuts); kept != nil && kept.ID.Leader == opts.Leader {
		return kept, nil
	}
	return &Plan{
		ID:        pass.PlanID{Number: nextNumber(roster, previous), Leader: opts.Leader},
		Model:     shape.Model,
		Layers:    len(shape.Layers),
		Pipelines: [][]Stage{stages},
		Spares:    p.spares(stages),
	}, nil
}

// solve finds the cuts. Two sweeps make it exact: the first finds how fast the slowest stage can be, the second looks
// for the best score among the ways that are no slower.
func (p *problem) solve() (found[score], []class, error) {
	if p.keeping {
		classes := p.classes(true)
		if w := p.keepingOrder(classes); w != nil {
			if found := p.slowest(classes, w, math.MaxInt64, true); found.ok {
				return p.finest(classes, w, found.value, true), classes, nil
			}
		}
	}
	alone := []bool{true}
	if p.stages > 0 {
		alone = []bool{false, true}
	}
	furthest := 0
	for _, headAlone := range alone {
		classes := p.classes(true)
		every := p.everyOrder(classes)
		if every == nil {
			if alike := p.classes(false); p.everyOrder(alike) != nil {
				classes, every = alike, p.everyOrder(alike)
			}
		}
		limit := int64(math.MaxInt64)
		var way *walk
		try := func(w *walk) {
			found := p.slowest(classes, w, limit, headAlone)
			furthest = max(furthest, found.furthest)
			if found.ok && (way == nil || found.value < limit) {
				limit, way = found.value, w
			}
		}
		if some := p.someOrders(classes); every == nil {
			for _, w := range some {
				try(w)
			}
		} else {
			// One order gives a limit, which spares the sweep over every order most of its steps.
			for _, w := range some[:min(1, len(some))] {
				try(w)
			}
			way = nil
			try(every)
		}
		if way != nil {
			return p.finest(classes, way, limit, headAlone), classes, nil
		}
	}
	return found[score]{}, nil, p.short(furthest)
}

// appoint says which shard of its class takes which piece: first those that hold most of it already, then by name.
func (p *problem) appoint(cuts []stretch, classes []class) []Stage {
	type match struct{ cut, shard, layers int }
	var matches []match
	for i, s := range cuts {
		for _, shard := range classes[s.class].shards {
			matches = append(matches, match{i, shard, overlap(p.layersOf(s.from, s.to), p.shards[shard].holds)})
		}
	}
	slices.SortStableFunc(matches, func(a, b match) int { return cmp.Compare(b.layers, a.layers) })
	stages := make([]Stage, len(cuts))
	taken := make([]bool, len(p.shards))
	for _, m := range matches {
		if stages[m.cut].Shard != "" || taken[m.shard] {
			continue
		}
		taken[m.shard] = true
		s := cuts[m.cut]
		stage := p.shape.stage(p.layersOf(s.from, s.to), s.to == p.items())
		stage.Shard, stage.Address = p.shards[m.shard].name, p.shards[m.shard].address
		stages[m.cut] = stage
	}
	return stages
}

// keep is the previous plan if it still works and a new one with these cuts is not worth the move; otherwise nil.
func (p *problem) keep(previous *Plan, cuts []stretch) *Plan {
	if previous == nil || len(previous.Pipelines) != 1 {
		return nil
	}
	old := previous.Pipelines[0]
	if p.stages > 0 && len(old) != p.stages {
		return nil
	}
	slowest, sum, from := int64(0), int64(0), 0
	for i, s := range old {
		at := slices.IndexFunc(p.shards, func(c candidate) bool { return c.name == s.Shard && c.address == s.Address })
		to := int(s.Layers.Last)
		if i == len(old)-1 {
			to = p.items()
		}
		if at < 0 || int(s.Layers.First) != from || to < from || p.need(from, to) > p.shards[at].memory {
			return nil
		}
		cost := p.cost(p.shards[at].slowness, from, to)
		slowest, sum, from = max(slowest, cost), sum+cost, int(s.Layers.Last)
	}
	newSlowest, newSum := int64(0), int64(0)
	for _, s := range cuts {
		newSlowest, newSum = max(newSlowest, s.cost), newSum+s.cost
	}
	worth := func(old, new int64) bool { return float64(old) > 1.15*float64(new) }
	if from != len(p.shape.Layers) || !p.keeping && (worth(slowest, newSlowest) || newSlowest <= slowest && worth(sum, newSum)) {
		return nil
	}
	spares := p.spares(old)
	if slices.Equal(spares, previous.Spares) {
		return previous
	}
	kept := *previous
	kept.Spares = spares
	return &kept
}

// spares are the shards that are on no stage.
func (p *problem) spares(stages []Stage) []string {
	var spares []string
	for _, c := range p.shards {
		if !slices.ContainsFunc(stages, func(s Stage) bool { return s.Shard == c.name }) {
			spares = append(spares, c.name)
		}
	}
	return spares
}

// nextNumber is above the number of every plan that anyone is known to have.
func nextNumber(roster Roster, previous *Plan) uint64 {
	number := uint64(0)
	if previous != nil {
		number = previous.ID.Number
	}
	for _, m := range roster {
		// A member that claims a number near the end of their range must not use them up.
		if m.Plan < math.MaxUint32 {
			number = max(number, m.Plan)
		}
	}
	return number + 1
}
