package plan

import (
	"cmp"
	"math"
	"net"
	"slices"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/pass"
)

// A problem is a roster and a shape as Solve works on them. Its items are the layers and, behind them, the head with
// the final norm, so that a stage may hold the head alone. A piece [i, j) of the items is what one stage holds.
type problem struct {
	shape   *Shape
	weights []int64 // prefix sums of the bytes read for a token; (items + 1)
	memory  []int64 // prefix sums of the bytes reserved; (items + 1)
	working int64   // reserved by every stage besides
	shards  []candidate
	stages  int  // exactly so many; 0: as many as help
	keeping bool // shards keep what they hold
}

// A candidate is a shard that may hold a block.
type candidate struct {
	name, address string
	memory        int64
	slowness      int64 // time to read a byte, in units of 1/1024 of the fastest shard's
	holds         model.Layers
	keeps         stretch // of the items, what it holds; the head is one
}

const (
	slownessOne = 1 << 10
	slownessMax = 1 << 16 // a shard 64 times slower than the fastest counts as one that is slower still
)

func newProblem(roster Roster, shape *Shape, previous *Plan, stages int) *problem {
	layers := len(shape.Layers)
	p := &problem{
		shape:   shape,
		weights: make([]int64, layers+2),
		memory:  make([]int64, layers+2),
		working: shape.working(),
		stages:  min(stages, layers), // a stage without a layer is not what was asked for
	}
	for i, l := range shape.Layers {
		p.weights[i+1] = p.weights[i] + l.Weights
		p.memory[i+1] = p.memory[i] + l.Weights + l.Cache*shape.positions()
	}
	p.weights[layers+1] = p.weights[layers] + shape.Head + shape.Norm
	p.memory[layers+1] = p.memory[layers] + shape.Head + shape.Norm
	p.shards = candidates(roster, previous)
	return p
}

// candidates are the shards that can be planned on, sorted by name.
func candidates(roster Roster, previous *Plan) []candidate {
	members := slices.DeleteFunc(NewRoster(roster.Shards()...), func(m Member) bool {
		return m.State == Draining ||
			m.Protocol != 0 && m.Protocol != pass.Protocol || m.Numerics != 0 && m.Numerics != pass.Numerics
	})
	members = slices.CompactFunc(members, func(a, b Member) bool { return a.Name == b.Name })
	speeds := speeds(members)
	fastest := 0.0
	for _, s := range speeds {
		fastest = max(fastest, s)
	}
	shards := make([]candidate, len(members))
	for i, m := range members {
		slowness := min(math.Round(slownessOne*fastest/speeds[i]), slownessMax)
		shards[i] = candidate{name: m.Name, address: m.Address, memory: m.Memory, slowness: int64(slowness)}
		if previous == nil {
			continue
		}
		if pipeline, place, ok := previous.Stage(m.Name); ok && previous.Pipelines[pipeline][place].Address == m.Address {
			held := previous.Pipelines[pipeline][place]
			shards[i].holds = held.Layers
			shards[i].keeps = stretch{from: int(held.Layers.First), to: int(held.Layers.Last)}
			if held.Last {
				shards[i].keeps.to++
			}
		}
	}
	return shards
}

// speeds are the members' bandwidths. Shards on one host share its memory bus and disturb each other's measurement, so
// each of them counts with their mean; who has not measured counts with the mean of all others.
func speeds(members Roster) []float64 {
	known := func(m Member) bool { return m.Speed > 0 && m.Speed <= math.MaxFloat32 }
	mean := func(among func(Member) bool) float64 {
		sum, n := 0.0, 0.0
		for _, m := range members {
			if known(m) && among(m) {
				sum, n = sum+m.Speed, n+1
			}
		}
		if n == 0 {
			return 0
		}
		return sum / n
	}
	all := cmp.Or(mean(func(Member) bool { return true }), 1)
	speeds := make([]float64, len(members))
	for i, m := range members {
		host := hostOf(m)
		speeds[i] = cmp.Or(mean(func(o Member) bool { return o.Name == m.Name || host != "" && host == hostOf(o) }), all)
	}
	return speeds
}

// hostOf is the machine a member runs on, or "" where its address does not say.
func hostOf(m Member) string {
	host, _, err := net.SplitHostPort(m.Address)
	if err != nil {
		return ""
	}
	return host
}

func (p *problem) items() int { return len(p.weights) - 1 }

// cost is the time a shard takes for a piece.
func (p *problem) cost(slowness int64, from, to int) int64 {
	return slowness * (p.weights[to] - p.weights[from])
}

// need is the memory a shard must offer for a piece.
func (p *problem) need(from, to int) int64 {
	return p.memory[to] - p.memory[from] + p.working
}

// layersOf is the block in a piece: the head is no layer.
func (p *problem) layersOf(from, to int) model.Layers {
	last := len(p.shape.Layers)
	return model.Layers{First: model.LayerIndex(min(from, last)), Last: model.LayerIndex(min(to, last))}
}

// overlap is how many layers two blocks share.
func overlap(a, b model.Layers) int {
	return max(0, int(min(a.Last, b.Last)-max(a.First, b.First)))
}
