package plan

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/pass"
)

// Plan says who holds what: the model is cut into blocks, and each block has one holder or several, which are replicas of
// each other. A shard holds one block. It is immutable: whoever has one may share it.
type Plan struct {
	ID     pass.PlanID
	Model  string
	Layers int // of the model
	// Pipelines each cover the model, all with the same cuts. There are as many as the block with most holders has: pipeline j
	// goes through holder j mod n of a block with n holders, so that every holder is on one, and one of a block with fewer
	// holders may be on several. Any other choice of one holder a block would do as well, since all have loaded the same plan.
	Pipelines [][]Stage
	Spares    []string // shards that hold nothing, by name
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

// pipelinesOf makes the pipelines through the holders of each block.
func pipelinesOf(blocks [][]Stage) [][]Stage {
	most := 0
	for _, holders := range blocks {
		most = max(most, len(holders))
	}
	pipelines := make([][]Stage, most)
	for j := range pipelines {
		for _, holders := range blocks {
			pipelines[j] = append(pipelines[j], holders[j%len(holders)])
		}
	}
	return pipelines
}

// Stages is how many stages every pipeline has: one for each block.
func (p *Plan) Stages() int { return len(p.Pipelines[0]) }

// Holders are the shards that hold the block of a stage, in the order in which the pipelines take them.
func (p *Plan) Holders(stage int) []Stage {
	var holders []Stage
	for _, stages := range p.Pipelines {
		if len(holders) > 0 && stages[stage].Shard == holders[0].Shard {
			break // from here on they take turns
		}
		holders = append(holders, stages[stage])
	}
	return holders
}

// Whole says whether the pipelines hold every layer. Those of every plan of Solve do; what was found may not.
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

// Stage finds the stage of a shard: the first pipeline that goes through it, and its place, which is the same in all of them.
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

// Through are the pipelines that go through a shard.
func (p *Plan) Through(shard string) []int {
	var through []int
	for i, stages := range p.Pipelines {
		for j := range stages {
			if stages[j].Shard == shard {
				through = append(through, i)
			}
		}
	}
	return through
}

// Route is a chain of stages as a pass carries it.
func Route(stages []Stage) []pass.Stage {
	route := make([]pass.Stage, len(stages))
	for i, s := range stages {
		route[i] = pass.Stage{Shard: s.Shard, Address: s.Address, Layers: s.Layers}
	}
	return route
}

// String is the plan in one line, for logs: "plan 3@c0: s0+s3 0-14, s1 15-29; spare s2".
func (p *Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "plan %s: ", p.ID)
	for i := range p.Stages() {
		separator := ", "
		if i == 0 {
			separator = ""
		}
		for _, s := range p.Holders(i) {
			b.WriteString(separator + s.Shard)
			separator = "+"
		}
		fmt.Fprintf(&b, " %s", p.Pipelines[0][i].Layers)
	}
	if len(p.Spares) > 0 {
		fmt.Fprintf(&b, "; spare %s", strings.Join(p.Spares, " "))
	}
	return b.String()
}
