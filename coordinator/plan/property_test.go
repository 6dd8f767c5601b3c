package plan

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/daisy-llm/daisy/model"
)

// genShape draws a small model: layers of one size or of many, a head that may outweigh them all.
func genShape(t *rapid.T, maxLayers int) Shape {
	s := Shape{
		Model:     "drawn",
		Embedding: rapid.Int64Range(0, 500).Draw(t, "embedding"),
		Head:      rapid.Int64Range(0, 500).Draw(t, "head"),
		Norm:      rapid.Int64Range(0, 3).Draw(t, "norm"),
		Scratch:   rapid.Int64Range(0, 40).Draw(t, "scratch"),
		Loading:   rapid.Int64Range(0, 40).Draw(t, "loading"),
		Context:   rapid.IntRange(1, 5).Draw(t, "context"),
		Parallel:  rapid.IntRange(1, 3).Draw(t, "parallel"),
	}
	layer := rapid.Custom(func(t *rapid.T) LayerSize {
		return LayerSize{Weights: rapid.Int64Range(1, 200).Draw(t, "weights"), Cache: rapid.Int64Range(0, 9).Draw(t, "cache")}
	})
	n := rapid.IntRange(1, maxLayers).Draw(t, "layers")
	if rapid.Bool().Draw(t, "even") {
		s.Layers = slices.Repeat([]LayerSize{layer.Draw(t, "layer")}, n)
	} else {
		s.Layers = rapid.SliceOfN(layer, n, n).Draw(t, "layers")
	}
	return s
}

// genRoster draws shards that offer about what the model needs between them.
func genRoster(t *rapid.T, shape Shape, maxShards int) Roster {
	whole := reserved(shape, model.Layers{Last: model.LayerIndex(len(shape.Layers))}, true)
	n := rapid.IntRange(1, maxShards).Draw(t, "shards")
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{
			Name:    fmt.Sprintf("s%d", i),
			Address: fmt.Sprintf("10.0.0.%d:7000", i+1),
			Memory:  rapid.Int64Range(0, 2*whole).Draw(t, "memory"),
			Speed:   rapid.SampledFrom([]float64{0, 5, 10, 20, 33.3, 40}).Draw(t, "speed"),
		}
	}
	return NewRoster(members...)
}

// reserved is the memory of a stage, reckoned apart from the code under test.
func reserved(s Shape, layers model.Layers, head bool) int64 {
	n := max(s.Scratch, s.Loading)
	for _, l := range s.Layers[layers.First:layers.Last] {
		n += l.Weights + l.Cache*int64(s.Context)*int64(s.Parallel)
	}
	if head {
		n += s.Head + s.Norm
	}
	return n
}

// speedOf is the speed Solve should take: the measured one, else the mean of the others.
func speedOf(roster Roster, m Member) float64 {
	if m.Speed > 0 {
		return m.Speed
	}
	sum, n := 0.0, 0.0
	for _, o := range roster {
		if o.Speed > 0 {
			sum, n = sum+o.Speed, n+1
		}
	}
	if n == 0 {
		return 1
	}
	return sum / n
}

func timeOf(roster Roster, s Shape, m Member, layers model.Layers, head bool) float64 {
	bytes := int64(0)
	for _, l := range s.Layers[layers.First:layers.Last] {
		bytes += l.Weights
	}
	if head {
		bytes += s.Head + s.Norm
	}
	return float64(bytes) / speedOf(roster, m)
}

// check holds a plan against its promises and gives its slowest stage and sum.
func check(t require, plan *Plan, roster Roster, shape Shape) (slowest, sum float64) {
	t.Helper()
	if len(plan.Pipelines) != 1 || len(plan.Pipelines[0]) == 0 {
		t.Fatalf("no pipeline in %s", plan)
	}
	seen := map[string]bool{}
	next := model.LayerIndex(0)
	stages := plan.Pipelines[0]
	for i, s := range stages {
		m, ok := roster.Find(s.Shard)
		if !ok || m.Address != s.Address || seen[s.Shard] {
			t.Fatalf("stage %d is on %s at %s, which is not a shard of its own: %s", i, s.Shard, s.Address, plan)
		}
		seen[s.Shard] = true
		last := i == len(stages)-1
		if s.Layers.First != next || s.Layers.Len() < 0 || s.Layers.Len() == 0 && !last {
			t.Fatalf("stage %d holds %s after layer %d: %s", i, s.Layers, next, plan)
		}
		next = s.Layers.Last
		if s.First != (s.Layers.First == 0) || s.Last != last {
			t.Fatalf("stage %d of %d: first %t, last %t", i, len(stages), s.First, s.Last)
		}
		if need := reserved(shape, s.Layers, last); need != s.Memory() || need > m.Memory {
			t.Fatalf("stage %d needs %d, says %d, and its shard offers %d", i, need, s.Memory(), m.Memory)
		}
		took := timeOf(roster, shape, m, s.Layers, last)
		slowest, sum = max(slowest, took), sum+took
	}
	if int(next) != len(shape.Layers) {
		t.Fatalf("the plan ends at layer %d of %d: %s", next, len(shape.Layers), plan)
	}
	for _, name := range plan.Spares {
		if seen[name] {
			t.Fatalf("%s is a spare and on a stage: %s", name, plan)
		}
		seen[name] = true
	}
	if len(seen) != len(roster.Shards()) {
		t.Fatalf("%d shards planned, %d there: %s", len(seen), len(roster.Shards()), plan)
	}
	return slowest, sum
}

type require interface {
	Helper()
	Fatalf(string, ...any)
}

// brute tries every order of every subset and every cut.
func brute(roster Roster, shape Shape) (slowest, sum float64, ok bool) {
	slowest, sum = math.Inf(1), math.Inf(1)
	used := make([]bool, len(roster))
	n := model.LayerIndex(len(shape.Layers))
	var place func(from model.LayerIndex, slow, total float64)
	place = func(from model.LayerIndex, slow, total float64) {
		for i, m := range roster {
			if used[i] {
				continue
			}
			used[i] = true
			for to := from; to <= n; to++ {
				layers := model.Layers{First: from, Last: to}
				if to == n && reserved(shape, layers, true) <= m.Memory {
					took := timeOf(roster, shape, m, layers, true)
					if s, a := max(slow, took), total+took; s < slowest*(1-1e-9) || s < slowest*(1+1e-9) && a < sum {
						slowest, sum, ok = s, a, true
					}
				}
				if to > from && reserved(shape, layers, false) <= m.Memory {
					took := timeOf(roster, shape, m, layers, false)
					place(to, max(slow, took), total+took)
				}
			}
			used[i] = false
		}
	}
	place(0, 0, 0)
	return slowest, sum, ok
}

func TestBestOfAllOrdersAndCuts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := genShape(t, 6)
		roster := genRoster(t, shape, 3)
		plan, err := Solve(roster, shape, nil, Options{Leader: "c"})
		slowest, sum, ok := brute(roster, shape)
		if !ok {
			var short *ShortError
			if !errors.As(err, &short) || short.Missing <= 0 {
				t.Fatalf("nothing fits, but Solve gives %v, %v", plan, err)
			}
			return
		}
		if err != nil {
			t.Fatalf("a plan exists, but: %v", err)
		}
		gotSlowest, gotSum := check(t, plan, roster, shape)
		const rounding = 1.002 // slowness is kept in steps of 1/1024
		if gotSlowest > slowest*rounding {
			t.Fatalf("slowest stage %g, possible %g: %s", gotSlowest, slowest, plan)
		}
		// Only ratios of speeds that are kept exactly make exact ties, which the sum decides.
		exact := !slices.ContainsFunc(roster, func(m Member) bool { return m.Speed == 0 || m.Speed == 33.3 })
		if exact && gotSum > sum*(1+1e-9) {
			t.Fatalf("sum %g, possible %g: %s", gotSum, sum, plan)
		}
	})
}

func TestSameForAnyOrderOfMembers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := genShape(t, 12)
		roster := genRoster(t, shape, 6)
		shuffled := Roster(rapid.Permutation(roster).Draw(t, "shuffled"))
		opts := Options{Leader: "c", Stages: rapid.IntRange(0, len(roster)).Draw(t, "stages")}
		a, errA := Solve(roster, shape, nil, opts)
		b, errB := Solve(shuffled, shape, nil, opts)
		if diff := cmp.Diff(a, b); diff != "" || fmt.Sprint(errA) != fmt.Sprint(errB) {
			t.Fatalf("%v, %v: %s", errA, errB, diff)
		}
	})
}

func TestMoreMemoryNeverHurts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := genShape(t, 10)
		roster := genRoster(t, shape, 5)
		plan, err := Solve(roster, shape, nil, Options{})
		if err != nil {
			return
		}
		slowest, _ := check(t, plan, roster, shape)
		more := slices.Clone(roster)
		for i := range more {
			more[i].Memory += rapid.Int64Range(0, 1000).Draw(t, "more")
		}
		plan, err = Solve(more, shape, nil, Options{})
		if err != nil {
			t.Fatalf("with more memory: %v", err)
		}
		if after, _ := check(t, plan, more, shape); after > slowest*1.002 {
			t.Fatalf("with more memory the slowest stage takes %g instead of %g", after, slowest)
		}
	})
}

func TestWorkingPlanStays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := genShape(t, 12)
		roster := genRoster(t, shape, 6)
		opts := Options{Leader: "c", Stages: rapid.IntRange(0, len(roster)).Draw(t, "stages")}
		plan, err := Solve(roster, shape, nil, opts)
		if err != nil {
			return
		}
		again, err := Solve(roster, shape, plan, opts)
		if err != nil || again != plan {
			t.Fatalf("nothing has changed, but %s became %v, %v", plan, again, err)
		}
		// Whoever is lost, what comes next is whole, newer, and the same as Headroom foretold.
		losses, err := Headroom(plan, roster, shape)
		if err != nil || len(losses) != len(plan.Pipelines[0]) {
			t.Fatalf("headroom of %d stages: %v, %v", len(plan.Pipelines[0]), losses, err)
		}
		for _, loss := range losses {
			left := slices.DeleteFunc(slices.Clone(roster), func(m Member) bool { return m.Name == loss.Shard })
			next, err := Solve(left, shape, plan, Options{Leader: "c"})
			if loss.Survivable() != (err == nil) {
				t.Fatalf("without %s: missing %d, but Solve says %v", loss.Shard, loss.Missing, err)
			}
			if err != nil {
				continue
			}
			check(t, next, left, shape)
			if next.Compare(plan) <= 0 {
				t.Fatalf("%s does not come after %s", next, plan)
			}
		}
	})
}

// Once shards are lost, the others keep at least what they hold, where their memory allows it; a plan that can go on goes on.
func TestSurvivorsKeepWhatTheyHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := genShape(t, 12)
		roster := genRoster(t, shape, 6)
		ample := rapid.Bool().Draw(t, "ample")
		for i := range roster {
			if ample {
				roster[i].Memory = 1 << 40
			}
		}
		opts := Options{Leader: "c", Keep: true}
		plan, err := Solve(roster, shape, nil, opts)
		if err != nil {
			return
		}
		for i := range roster {
			roster[i].Speed = rapid.SampledFrom([]float64{0, 5, 40}).Draw(t, "speed now")
		}
		if again, err := Solve(roster, shape, plan, opts); err != nil || again != plan {
			t.Fatalf("nobody was lost, but %s became %v, %v", plan, again, err)
		}
		lost := rapid.SliceOfNDistinct(rapid.IntRange(0, len(roster)-1), 0, len(roster)-1, rapid.ID).Draw(t, "lost")
		var left []Member
		for i, m := range roster {
			if !slices.Contains(lost, i) {
				left = append(left, m)
			}
		}
		for i := range rapid.IntRange(0, 2).Draw(t, "spares") {
			left = append(left, Member{Name: fmt.Sprintf("z%d", i), Address: fmt.Sprintf("10.0.2.%d:7000", i), Memory: roster[0].Memory})
		}
		rest := NewRoster(left...)
		next, err := Solve(rest, shape, plan, opts)
		if err != nil {
			if _, any := Solve(rest, shape, nil, Options{Leader: "c"}); any == nil {
				t.Fatalf("a plan exists, but: %v", err)
			}
			return
		}
		check(t, next, rest, shape)
		kept := true
		for _, s := range plan.Pipelines[0] {
			if _, there := rest.Find(s.Shard); !there {
				continue
			}
			_, place, ok := next.Stage(s.Shard)
			kept = kept && ok && next.Pipelines[0][place].Layers.First <= s.Layers.First && next.Pipelines[0][place].Layers.Last >= s.Layers.Last &&
				(!s.Last || next.Pipelines[0][place].Last)
		}
		if ample && !kept {
			t.Fatalf("%s became %s", plan, next)
		}
	})
}

func TestStagesAskedFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := genShape(t, 12)
		roster := genRoster(t, shape, 5)
		for i := range roster {
			roster[i].Memory = 1 << 40
		}
		stages := rapid.IntRange(1, len(roster)).Draw(t, "stages")
		plan, err := Solve(roster, shape, nil, Options{Stages: stages})
		if err != nil {
			t.Fatalf("%d stages: %v", stages, err)
		}
		check(t, plan, roster, shape)
		if got := len(plan.Pipelines[0]); got != min(stages, len(shape.Layers)) {
			t.Fatalf("%d stages asked for, got %d: %s", stages, got, plan)
		}
		for _, s := range plan.Pipelines[0] {
			if s.Layers.Len() == 0 {
				t.Fatalf("%s holds no layer: %s", s.Shard, plan)
			}
		}
	})
}

// Where there are too many different shards to try every order, the promises hold all the same.
func TestManyDifferentShards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(20, 64).Draw(t, "shards")
		shape := Shape{Model: "large", Head: 3000, Norm: 1, Scratch: 10, Context: 2, Parallel: 1,
			Layers: slices.Repeat([]LayerSize{{Weights: 1000, Cache: 7}}, rapid.IntRange(1, 128).Draw(t, "layers"))}
		members := make([]Member, n)
		capacity := int64(0) // layers that fit in all
		for i := range members {
			members[i] = Member{Name: fmt.Sprintf("s%02d", i), Address: fmt.Sprintf("10.0.1.%d:7000", i),
				Memory: rapid.Int64Range(3100, 9000).Draw(t, "memory"), Speed: rapid.Float64Range(5, 100).Draw(t, "speed")}
			capacity += (members[i].Memory - 10) / 1014
		}
		roster := NewRoster(members...)
		plan, err := Solve(roster, shape, nil, Options{})
		if err != nil {
			if capacity >= int64(len(shape.Layers))+4 {
				t.Fatalf("%d layers fit: %v", capacity, err)
			}
			return
		}
		check(t, plan, roster, shape)
	})
}
