package plan

import (
	"cmp"
	"slices"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/pass"
)

// Holding is a block that a shard was found to hold.
type Holding struct {
	Shard   string
	Address string
	Layers  model.Layers
}

// Found makes of what shards hold a previous plan for Solve, of no leader, with gaps where nobody holds anything. Who holds the
// same block as another is its replica; where two hold the same layer in different blocks one is left out. The last of them that
// hold anything up to the end have the head. It is nil if nobody holds a layer of such a model.
func Found(shape Shape, number uint64, held []Holding) *Plan {
	held = slices.Clone(held)
	slices.SortFunc(held, func(a, b Holding) int {
		return cmp.Or(cmp.Compare(a.Layers.First, b.Layers.First), cmp.Compare(b.Layers.Last, a.Layers.Last),
			cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Address, b.Address))
	})
	layers := model.LayerIndex(len(shape.Layers))
	var blocks [][]Stage
	placed := make(map[string]bool)
	end := model.LayerIndex(0)
	for _, h := range held {
		switch {
		case placed[h.Shard], h.Layers.Len() < 0, h.Layers.Len() == 0 && h.Layers.First != layers, h.Layers.Last > layers:
			continue
		case len(blocks) > 0 && blocks[len(blocks)-1][0].Layers == h.Layers: // a replica
		case h.Layers.First < end:
			continue
		default:
			blocks = append(blocks, nil)
		}
		placed[h.Shard] = true
		end = h.Layers.Last
		last := &blocks[len(blocks)-1]
		*last = append(*last, Stage{Shard: h.Shard, Address: h.Address, Layers: h.Layers})
	}
	if len(blocks) == 0 {
		return nil
	}
	for i, holders := range blocks {
		for j, s := range holders {
			holders[j] = shape.stage(s.Layers, i == len(blocks)-1 && end == layers)
			holders[j].Shard, holders[j].Address = s.Shard, s.Address
		}
	}
	return &Plan{ID: pass.PlanID{Number: number}, Model: shape.Model, Layers: int(layers), Pipelines: pipelinesOf(blocks)}
}
