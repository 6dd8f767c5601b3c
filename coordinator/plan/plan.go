package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/pass"
)

// Plan says who holds what. It is immutable: whoever has one may share it.
type Plan struct {
	ID        pass.PlanID
	Model     string
	Layers    int       // of the model
	Pipelines [][]Stage // each covers the model; for now there is one
	Spares    []string  // shards that hold nothing, by name
}

// Stage is one place in a pipeline, and what its shard must hold there, in bytes.
type Stage struct {
	Shard   string
	Address string
	Layers  model.Layers
	First   bool  // it also holds the token embedding
	Last    bool  // it also holds the final norm and the head
	Weights int64 // packed: its layers', and norm and head on the last stage
	Cache   int64 // keys and values of its layers, for every position of every sequence
	Scratch int64 // buffers: the larger of what a pass and what loading needs; and activation logs
	Mapped  int64 // the embedding on the first stage: in the mapped file, no memory is reserved for it
}

// Memory is what the stage reserves of its shard's memory.
func (s Stage) Memory() int64 { return s.Weights + s.Cache + s.Scratch }

// Holding is a block that a shard was found to hold.
type Holding struct {
	Shard   string
	Address string
	Layers  model.Layers
}

// Found makes of what shards hold a previous plan for Solve, of no leader: one pipeline, with gaps where nobody holds anything.
// Where two hold the same layer one is left out; the last of them that holds anything up to the end has the head. It is nil if
// nobody holds a layer of such a model.
func Found(shape Shape, number uint64, held []Holding) *Plan {
	p := &Plan{ID: pass.PlanID{Number: number}, Model: shape.Model, Layers: len(shape.Layers), Pipelines: [][]Stage{nil}}
	held = slices.Clone(held)
	slices.SortFunc(held, func(a, b Holding) int {
		return cmp.Or(cmp.Compare(a.Layers.First, b.Layers.First), cmp.Compare(b.Layers.Last, a.Layers.Last), cmp.Compare(a.Shard, b.Shard))
	})
	end := model.LayerIndex(0)
	for _, h := range held {
		head := int(h.Layers.First) == len(shape.Layers)
		if h.Layers.First < end || h.Layers.Len() < 0 || h.Layers.Len() == 0 && !head || int(h.Layers.Last) > len(shape.Layers) {
			continue
		}
		end = h.Layers.Last
		p.Pipelines[0] = append(p.Pipelines[0], Stage{Shard: h.Shard, Address: h.Address, Layers: h.Layers})
		if head {
			break
		}
	}
	stages := p.Pipelines[0]
	if len(stages) == 0 {
		return nil
	}
	for i, s := range stages {
		last := i == len(stages)-1 && int(end) == len(shape.Layers)
		stages[i] = shape.stage(s.Layers, last)
		stages[i].Shard, stages[i].Address = s.Shard, s.Address
	}
	return p
}

// Whole says whether the first pipeline holds every layer. Every plan of Solve is; what was found may not be.
func (p *Plan) Whole() bool {
	next := model.LayerIndex(0)
	for _, s := range p.Pipelines[0] {
		if s.Layers.First != next {
			return false
		}
		next = s.Layers.Last
	}
	return int(next) == p.Layers
}

// Compare orders plans by number, then leader; no plan comes before every plan.
func (p *Plan) Compare(other *Plan) int {
	if p == nil || other == nil {
		return cmp.Compare(rank(p), rank(other))
	}
	return cmp.Or(cmp.Compare(p.ID.Number, other.ID.Number), cmp.Compare(p.ID.Leader, other.ID.Leader))
}

func rank(p *Plan) int {
	if p == nil {
		return 0
	}
	return 1
}

// Stage finds the stage of a shard: which pipeline, and the place in it.
func (p *Plan) Stage(shard string) (pipeline, place int, ok bool) {
	for i, stages := range p.Pipelines {
		for j := range stages {
			if stages[j].Shard == shard {
				return i, j, true
			}
		}
	}
	return 0, 0, false
}

// Route is a pipeline as a pass carries it.
func (p *Plan) Route(pipeline int) []pass.Stage {
	route := make([]pass.Stage, len(p.Pipelines[pipeline]))
	for i, s := range p.Pipelines[pipeline] {
		route[i] = pass.Stage{Shard: s.Shard, Address: s.Address, Layers: s.Layers}
	}
	return route
}

// String is the plan in one line, for logs: "plan 3@c0: s0 0-14, s1 15-29; spare s2".
func (p *Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "plan %s: ", p.ID)
	for i, stages := range p.Pipelines {
		if i > 0 {
			b.WriteString(" | ")
		}
		for j, s := range stages {
			if j > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%s %s", s.Shard, s.Layers)
		}
	}
	if len(p.Spares) > 0 {
		fmt.Fprintf(&b, "; spare %s", strings.Join(p.Spares, " "))
	}
	return b.String()
}
