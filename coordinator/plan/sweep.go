package plan

// A stretch is a piece of the items on a shard of a class.
type stretch struct {
	class    int
	from, to int
	cost     int64
}

// A found way is how a sweep's best pipeline is cut, and its value. Without one, furthest is how many items could be
// placed at most.
type found[V any] struct {
	ok       bool
	value    V
	cuts     []stretch
	furthest int
}

// sweep looks for the best way through a walk: every item on one stage, no stage beyond limit or its shard's memory.
// The value of a way is built up stage by stage with extend, which must keep the order that less gives: then the best
// way to a place is part of the best way through it, and one table of (states, items + 1) holds them all.
func sweep[V any](p *problem, classes []class, w *walk, limit int64, headAlone bool, extend func(V, stretch) V, less func(a, b V) bool) found[V] {
	type cell struct {
		ok    bool
		value V
		state int // where the way here came from
		last  stretch
	}
	items := p.items()
	table := make([]cell, len(w.edges)*(items+1))
	at := func(state, item int) *cell { return &table[state*(items+1)+item] }
	at(0, 0).ok = true
	var best found[V]
	end := -1
	for state, edges := range w.edges {
		for from := range items {
			here := at(state, from)
			if !here.ok {
				continue
			}
			best.furthest = max(best.furthest, from)
			for _, e := range edges {
				c := &classes[e.class]
				if e.keeps && from > c.keeps.from {
					continue
				}
				reach := func(last stretch, value V) {
					if there := at(e.to, last.to); !there.ok || less(value, there.value) {
						*there = cell{ok: true, value: value, state: state, last: last}
					}
				}
				if w.skips {
					reach(stretch{class: e.class, from: from, to: from}, here.value)
				}
				for to := from + 1; to <= items; to++ {
					cost := p.cost(c.slowness, from, to)
					if cost > limit || p.need(from, to) > c.memory {
						break
					}
					if from == items-1 && !headAlone {
						break
					}
					if e.keeps && to < c.keeps.to {
						continue
					}
					last := stretch{class: e.class, from: from, to: to, cost: cost}
					reach(last, extend(here.value, last))
				}
			}
		}
		if done := at(state, items); done.ok {
			best.furthest = items
			if (p.stages == 0 || w.used[state] == p.stages) && (w.ends == nil || w.ends[state]) && (end < 0 || less(done.value, best.value)) {
				best.value, end = done.value, state
			}
		}
	}
	if end < 0 {
		return best
	}
	best.ok = true
	for state, item := end, items; state != 0; {
		c := at(state, item)
		if c.last.to > c.last.from {
			best.cuts = append(best.cuts, c.last)
		}
		state, item = c.state, c.last.from
	}
	for i, j := 0, len(best.cuts)-1; i < j; i, j = i+1, j-1 {
		best.cuts[i], best.cuts[j] = best.cuts[j], best.cuts[i]
	}
	return best
}

// slowest looks for the way whose slowest stage is fastest.
func (p *problem) slowest(classes []class, w *walk, limit int64, headAlone bool) found[int64] {
	return sweep(p, classes, w, limit, headAlone,
		func(v int64, s stretch) int64 { return max(v, s.cost) },
		func(a, b int64) bool { return a < b })
}

// A score orders the ways whose slowest stage is equally fast.
type score struct {
	sum     int64   // of the stages' times: what one token alone takes
	working int     // stages that compute: among equals, all of them share the work
	stages  int     // stages, those included that have nothing to compute
	moved   int     // layers that their shard does not hold yet
	squares float64 // of the stages' times: the smaller, the more even
}

func (a score) less(b score) bool {
	switch {
	case a.sum != b.sum:
		return a.sum < b.sum
	case a.working != b.working:
		return a.working > b.working
	case a.stages != b.stages:
		return a.stages < b.stages
	case a.moved != b.moved:
		return a.moved < b.moved
	}
	return a.squares < b.squares
}

// finest looks for the way with the best score.
func (p *problem) finest(classes []class, w *walk, limit int64, headAlone bool) found[score] {
	return sweep(p, classes, w, limit, headAlone,
		func(v score, s stretch) score {
			v.sum += s.cost
			if s.cost > 0 {
				v.working++
			}
			v.stages++
			layers := p.layersOf(s.from, s.to)
			v.moved += layers.Len() - overlap(layers, p.shards[classes[s.class].shards[0]].holds)
			v.squares += float64(s.cost) * float64(s.cost)
			return v
		},
		score.less)
}
