package plan

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/daisy-llm/daisy/model"
)

// pipes makes a plan of blocks with so many holders each: a0, a1, ... hold the first.
func pipes(holders ...int) *Plan {
	var blocks [][]Stage
	for i, n := range holders {
		var held []Stage
		for j := range n {
			held = append(held, Stage{Shard: fmt.Sprintf("%c%d", 'a'+i, j), Layers: block(model.LayerIndex(i), model.LayerIndex(i+1))})
		}
		blocks = append(blocks, held)
	}
	return &Plan{Layers: len(holders), Pipelines: pipelinesOf(blocks)}
}

func names(stages []Stage) string {
	text := ""
	for _, s := range stages {
		text += s.Shard + " "
	}
	return text
}

func TestPipelines(t *testing.T) {
	p := pipes(2, 1, 3)
	var got string
	for _, stages := range p.Pipelines {
		got += names(stages) + "| "
	}
	if want := "a0 b0 c0 | a1 b0 c1 | a0 b0 c2 | "; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := fmt.Sprint(p.Through("a0"), p.Through("b0"), p.Through("c1"), p.Through("z")); got != "[0 2] [0 1 2] [1] []" {
		t.Errorf("through a0, b0, c1, z: %s", got)
	}
	if pipeline, place, ok := p.Stage("c1"); pipeline != 1 || place != 2 || !ok {
		t.Errorf("c1 is on pipeline %d, stage %d, %t", pipeline, place, ok)
	}
}

func TestReroute(t *testing.T) {
	for _, test := range []struct {
		name string
		plan *Plan
		dead string
		want string
	}{
		{"nobody is dead", pipes(2, 2), "", "a0 b0 | a1 b1 | "},
		{"one of two", pipes(2, 2), "a0", "a1 b0 | a1 b1 | "},
		{"one of each", pipes(2, 2), "a0 b1", "a1 b0 | a1 b0 | "},
		{"the only one", pipes(2, 1), "b0", "| | "},
		{"the least used", pipes(3, 4), "a1", "a0 b0 | a2 b1 | a2 b2 | a0 b3 | "},
		{"they share what it did", pipes(3, 6), "a0", "a1 b0 | a1 b1 | a2 b2 | a2 b3 | a1 b4 | a2 b5 | "},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			for i := range test.plan.Pipelines {
				got += names(test.plan.Reroute(i, set(test.dead))) + "| "
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func set(names string) map[string]bool {
	s := make(map[string]bool)
	for _, name := range strings.Fields(names) {
		s[name] = true
	}
	return s
}

// A rerouted pipeline takes only living holders of the blocks it had, changes nothing else, and exists where every block has one.
func TestRerouteTakesLivingHolders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := pipes(rapid.SliceOfN(rapid.IntRange(1, 4), 1, 5).Draw(t, "holders")...)
		dead := make(map[string]bool)
		possible := true
		for i := range p.Stages() {
			living := 0
			for _, s := range p.Holders(i) {
				if dead[s.Shard] = rapid.IntRange(0, 2).Draw(t, s.Shard) == 0; !dead[s.Shard] {
					living++
				}
			}
			possible = possible && living > 0
		}
		for j, stages := range p.Pipelines {
			route := p.Reroute(j, dead)
			if (route != nil) != possible {
				t.Fatalf("%s without %v: %v", p, dead, route)
			}
			for i, s := range route {
				if dead[s.Shard] || s.Layers != stages[i].Layers || !dead[stages[i].Shard] && s != stages[i] {
					t.Fatalf("%s without %v: pipeline %d goes through %s", p, dead, j, names(route))
				}
			}
		}
	})
}
