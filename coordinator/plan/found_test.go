package plan

import (
	"testing"

	"github.com/daisy-llm/daisy/model"
)

func block(first, last model.LayerIndex) model.Layers { return model.Layers{First: first, Last: last} }

func TestFound(t *testing.T) {
	shape := small()
	for _, test := range []struct {
		name string
		held []Holding
		want string // "": nothing
	}{
		{"nobody", nil, ""},
		{"all of it", []Holding{{"b", "b:1", block(14, 30)}, {"a", "a:1", block(0, 14)}}, "a 0-13, b 14-29"},
		{"replicas", []Holding{{"d", "d:1", block(14, 30)}, {"c", "c:1", block(0, 14)}, {"b", "b:1", block(14, 30)}, {"a", "a:1", block(0, 14)}}, "a+c 0-13, b+d 14-29"},
		{"more of one than of another", []Holding{{"d", "d:1", block(14, 30)}, {"c", "c:1", block(14, 30)}, {"b", "b:1", block(14, 30)}, {"a", "a:1", block(0, 14)}}, "a 0-13, b+c+d 14-29"},
		{"a gap", []Holding{{"c", "c:1", block(20, 30)}, {"b", "b:1", block(5, 10)}, {"a", "a:1", block(5, 10)}}, "a+b 5-9, c 20-29"},
		{"the head alone, twice", []Holding{{"c", "c:1", block(30, 30)}, {"b", "b:1", block(30, 30)}, {"a", "a:1", block(0, 30)}}, "a 0-29, b+c none"},
		{"other cuts", []Holding{{"a", "a:1", block(0, 14)}, {"b", "b:1", block(10, 30)}, {"c", "c:1", block(14, 30)}}, "a 0-13, c 14-29"},
		{"one twice", []Holding{{"a", "a:1", block(0, 14)}, {"a", "a:1", block(0, 14)}, {"a", "a:1", block(14, 30)}}, "a 0-13"},
		{"no such blocks", []Holding{{"a", "a:1", block(-3, 5)}, {"b", "b:1", block(5, 2)}, {"c", "c:1", block(3, 3)}, {"d", "d:1", block(0, 31)}, {"e", "e:1", block(31, 31)}}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := Found(shape, 7, test.held)
			if p == nil || test.want == "" {
				if p != nil || test.want != "" {
					t.Fatalf("got %v, want %q", p, test.want)
				}
				return
			}
			if got, want := p.String(), "plan 7@: "+test.want; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			for _, s := range p.Pipelines[0] {
				if want := s.Layers.Last == 30 && s.Shard == p.Pipelines[0][p.Stages()-1].Shard; s.Last != want || s.First != (s.Layers.First == 0) {
					t.Errorf("%s: first %t, last %t", s.Shard, s.First, s.Last)
				}
			}
		})
	}
}
