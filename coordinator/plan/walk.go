package plan

import (
	"cmp"
	"math"
	"slices"
)

// A class is a set of shards that differ in nothing Solve looks at.
type class struct {
	memory   int64
	slowness int64
	keeps    stretch // what each of them holds now, if classes are exact
	shards   []int   // indices into problem.shards, by name
}

// A walk says in which orders shards may follow each other in a pipeline. It starts in state 0; an edge takes one
// shard of a class and leads to a state with a higher number.
type walk struct {
	edges [][]edge // by state
	used  []int    // shards taken or passed over on the way to a state
	skips bool     // a shard may be passed over
	ends  []bool   // by state: a pipeline may end there; nil: anywhere
}

type edge struct {
	class, to int
	keeps     bool // the shard must get what it holds, at least
}

// maxWork bounds the steps of one sweep over all orders, and so the time of Solve: beyond it Solve tries some orders.
const maxWork = 1 << 25

// classes groups the shards that could hold anything at all; exact says whether shards that hold different layers now
// are told apart, which is needed to move as little as possible.
func (p *problem) classes(exact bool) []class {
	needed := p.need(0, p.items())
	smallest := int64(math.MaxInt64)
	for i := range p.items() {
		smallest = min(smallest, p.need(i, i+1))
	}
	type key struct {
		memory, slowness int64
		keeps            stretch
	}
	byKey := make(map[key]int)
	var classes []class
	for i, s := range p.shards {
		if s.memory < smallest {
			continue
		}
		k := key{memory: min(s.memory, needed), slowness: s.slowness}
		if exact {
			k.keeps = s.keeps
		}
		at, ok := byKey[k]
		if !ok {
			at = len(classes)
			byKey[k] = at
			classes = append(classes, class{memory: k.memory, slowness: k.slowness, keeps: k.keeps})
		}
		classes[at].shards = append(classes[at].shards, i)
	}
	return classes
}

// everyOrder is the walk through all orders of all subsets, or nil where that would take too long.
func (p *problem) everyOrder(classes []class) *walk {
	states, perState := 1, len(classes)*p.items()*p.items()/2+1
	strides := make([]int, len(classes))
	for i, c := range classes {
		strides[i] = states
		states *= len(c.shards) + 1
		if states > maxWork/perState {
			return nil
		}
	}
	w := &walk{edges: make([][]edge, states), used: make([]int, states)}
	for state := range states {
		for i, c := range classes {
			taken := state / strides[i] % (len(c.shards) + 1)
			w.used[state] += taken
			if taken < len(c.shards) {
				w.edges[state] = append(w.edges[state], edge{class: i, to: state + strides[i]})
			}
		}
	}
	return w
}

// someOrders are walks that each follow one order: by speed, by memory, by name, each with every class in turn at the
// end, where the head is.
func (p *problem) someOrders(classes []class) []*walk {
	var byName []int
	for i, c := range classes {
		for range c.shards {
			byName = append(byName, i)
		}
	}
	bySpeed, byMemory := slices.Clone(byName), slices.Clone(byName)
	slices.SortStableFunc(bySpeed, func(a, b int) int {
		return cmp.Or(cmp.Compare(classes[a].slowness, classes[b].slowness), cmp.Compare(classes[b].memory, classes[a].memory))
	})
	slices.SortStableFunc(byMemory, func(a, b int) int {
		return cmp.Or(cmp.Compare(classes[b].memory, classes[a].memory), cmp.Compare(classes[a].slowness, classes[b].slowness))
	})
	if len(byName) < p.stages {
		return nil
	}
	var walks []*walk
	for _, order := range [][]int{bySpeed, byMemory, byName} {
		for last := range classes {
			at := slices.Index(order, last)
			moved := append(slices.Delete(slices.Clone(order), at, at+1), last)
			if p.stages > 0 {
				moved = append(moved[:p.stages-1], last)
			}
			walks = append(walks, oneOrder(moved, p.stages == 0))
		}
	}
	return walks
}

// keepingOrder is the walk through the pipelines in which the shards that hold something follow each other as they do, with
// shards that hold nothing, or the same as another, anywhere between them. It is nil if nobody holds anything.
func (p *problem) keepingOrder(classes []class) *walk {
	var holders []int // classes, in the order of what they hold
	free := make([]int, len(classes))
	for i, c := range classes {
		free[i] = len(c.shards)
		if c.keeps.to > c.keeps.from {
			holders = append(holders, i)
		}
	}
	slices.SortStableFunc(holders, func(a, b int) int {
		return cmp.Or(cmp.Compare(classes[a].keeps.from, classes[b].keeps.from), cmp.Compare(classes[b].keeps.to, classes[a].keeps.to))
	})
	end := 0
	holders = slices.DeleteFunc(holders, func(i int) bool {
		if classes[i].keeps.from < end {
			return true
		}
		end = classes[i].keeps.to
		free[i]--
		return false
	})
	if len(holders) == 0 {
		return nil
	}
	places := len(holders) + 1
	states, perState := places, len(classes)*p.items()*p.items()/2+1
	strides := make([]int, len(classes))
	for i := range classes {
		for free[i] > 0 && states*(free[i]+1) > maxWork/perState {
			free[i]-- // the fewer spares, the faster
		}
		strides[i] = states
		states *= free[i] + 1
	}
	w := &walk{edges: make([][]edge, states), used: make([]int, states), ends: make([]bool, states)}
	for state := range states {
		place := state % places
		w.used[state], w.ends[state] = place, place == len(holders)
		if place < len(holders) {
			w.edges[state] = append(w.edges[state], edge{class: holders[place], to: state + 1, keeps: true})
		}
		for i := range classes {
			taken := state / strides[i] % (free[i] + 1)
			w.used[state] += taken
			if taken < free[i] {
				w.edges[state] = append(w.edges[state], edge{class: i, to: state + strides[i]})
			}
		}
	}
	return w
}

func oneOrder(order []int, skips bool) *walk {
	w := &walk{edges: make([][]edge, len(order)+1), used: make([]int, len(order)+1), skips: skips}
	for i, class := range order {
		w.edges[i] = []edge{{class: class, to: i + 1}}
		w.used[i+1] = i + 1
	}
	return w
}
