package plan

import "slices"

// Reroute is a pipeline without the shards that are dead: each of them makes way for another holder of its block, for the one
// in fewest pipelines. Nobody has to load anything for that. It is nil where a block has no living holder left.
//
// The pipelines before it count as rerouted too: those that lose a shard share what it did among all that are left.
func (p *Plan) Reroute(pipeline int, dead map[string]bool) []Stage {
	uses := make(map[string]int) // pipelines through each shard
	for _, stages := range p.Pipelines {
		for _, s := range stages {
			uses[s.Shard]++
		}
	}
	route := slices.Clone(p.Pipelines[pipeline])
	for i := range route {
		holders := p.Holders(i)
		living := slices.DeleteFunc(slices.Clone(holders), func(s Stage) bool { return dead[s.Shard] })
		if len(living) == 0 {
			return nil
		}
		for j := range pipeline + 1 {
			if route[i] = p.Pipelines[j][i]; !dead[route[i].Shard] {
				continue
			}
			for _, s := range living {
				if dead[route[i].Shard] || uses[s.Shard] < uses[route[i].Shard] {
					route[i] = s
				}
			}
			uses[route[i].Shard]++
		}
	}
	return route
}
