package plan

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/pass"
)

const mib = 1 << 20

// small has about the sizes of a model of 135 million parameters: 30 layers of 2 MiB, a head of 17.
func small() Shape {
	return Shape{Model: "small", Layers: slices.Repeat([]LayerSize{{Weights: 2 * mib, Cache: 768}}, 30),
		Embedding: 17 * mib, Head: 17 * mib, Norm: 2304, Scratch: mib, Context: 2048, Parallel: 4}
}

func shards(memory ...int64) Roster {
	var members []Member
	for i, m := range memory {
		members = append(members, Member{Name: fmt.Sprintf("s%d", i), Address: fmt.Sprintf("127.0.0.1:%d", 7000+i), Memory: m})
	}
	return NewRoster(members...)
}

func solve(t *testing.T, roster Roster, shape Shape, previous *Plan, opts Options) *Plan {
	t.Helper()
	plan, err := Solve(roster, shape, previous, opts)
	if err != nil {
		t.Fatal(err)
	}
	check(t, plan, roster, shape)
	return plan
}

func TestPlans(t *testing.T) {
	huge := Shape{Model: "huge head", Layers: slices.Repeat([]LayerSize{{Weights: 1}}, 2), Head: 10, Context: 1, Parallel: 1}
	with := func(r Roster, change func(i int, m *Member)) Roster {
		for i := range r {
			change(i, &r[i])
		}
		return r
	}
	for _, test := range []struct {
		name   string
		roster Roster
		shape  Shape
		opts   Options
		want   string
	}{
		{"one shard holds all", shards(1 << 30), small(), Options{}, "s0 0-29"},
		{"equal shards share evenly", shards(1<<30, 1<<30, 1<<30), small(), Options{}, "s0 0-12, s1 13-25, s2 26-29"},
		{"as many stages as asked for", shards(1<<30, 1<<30, 1<<30), small(), Options{Stages: 2}, "s0 0-18, s1 19-29; spare s2"},
		{"a large head is a stage of its own", shards(100, 100, 100), huge, Options{}, "s0 0, s1 1, s2 none"},
		{"asked for, each stage holds a layer", shards(100, 100, 100), huge, Options{Stages: 3}, "s0 0, s1 1; spare s2"},
		{"unless memory is short", shards(2, 2, 10), huge, Options{Stages: 2}, "s0 0-1, s2 none; spare s1"},
		{"the large one takes the head", shards(17*mib, 10*mib, 300*mib), small(), Options{}, "s0 0-1, s1 2, s2 3-29"},
		{"too small for a layer", shards(1<<30, 5*mib), small(), Options{}, "s0 0-29; spare s1"},
		{"who drains holds nothing", with(shards(1<<30, 1<<30), func(i int, m *Member) {
			if i == 0 {
				m.State = Draining
			}
		}), small(), Options{}, "s1 0-29"},
		{"other versions hold nothing", with(shards(1<<30, 1<<30, 1<<30), func(i int, m *Member) {
			m.Protocol, m.Numerics = pass.Protocol, pass.Numerics
			switch i {
			case 0:
				m.Protocol++
			case 1:
				m.Numerics++
			}
		}), small(), Options{}, "s2 0-29"},
		{"coordinators hold nothing", with(shards(1<<30, 1<<30), func(i int, m *Member) {
			if i == 1 {
				m.Role = Coordinator
			}
		}), small(), Options{}, "s0 0-29"},
		{"twice as fast, twice as much", with(shards(1<<30, 1<<30), func(i int, m *Member) {
			m.Address, m.Speed = fmt.Sprintf("10.0.0.%d:7000", i), []float64{10, 20}[i]
		}), Shape{Model: "no head", Layers: slices.Repeat([]LayerSize{{Weights: mib}}, 30), Context: 1, Parallel: 1}, Options{}, "s0 0-9, s1 10-29"},
		{"one host, one speed", with(shards(1<<30, 1<<30), func(i int, m *Member) {
			m.Speed = []float64{10, 20}[i]
		}), Shape{Model: "no head", Layers: slices.Repeat([]LayerSize{{Weights: mib}}, 30), Context: 1, Parallel: 1}, Options{}, "s0 0-14, s1 15-29"},
		{"speeds that no machine has count as unknown", with(shards(1<<30, 1<<30, 1<<30, 1<<30), func(i int, m *Member) {
			m.Address, m.Speed = fmt.Sprintf("10.0.0.%d:7000", i), []float64{math.NaN(), math.Inf(1), -5, math.MaxFloat64}[i]
		}), Shape{Model: "no head", Layers: slices.Repeat([]LayerSize{{Weights: mib}}, 8), Context: 1, Parallel: 1}, Options{}, "s0 0-1, s1 2-3, s2 4-5, s3 6-7"},
		{"a very slow one only slows it down", with(shards(1<<30, 1<<30), func(i int, m *Member) {
			m.Address, m.Speed = fmt.Sprintf("10.0.0.%d:7000", i), []float64{100, 1}[i]
		}), Shape{Model: "few layers", Layers: slices.Repeat([]LayerSize{{Weights: mib}}, 8), Context: 1, Parallel: 1}, Options{}, "s0 0-7; spare s1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan, err := Solve(test.roster, test.shape, nil, test.opts)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimPrefix(plan.String(), "plan 1@: "); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestNoPlan(t *testing.T) {
	gib := int64(1 << 30)
	large := Shape{Model: "large", Layers: slices.Repeat([]LayerSize{{Weights: gib}}, 3), Head: gib / 5, Context: 1, Parallel: 1}
	for _, test := range []struct {
		name   string
		roster Roster
		shape  Shape
		opts   Options
		want   string
	}{
		{"nobody", nil, small(), Options{}, "no shards"},
		{"only a coordinator", Roster{{Name: "c", Role: Coordinator, Memory: 1 << 40}}, small(), Options{}, "no shards"},
		{"fewer than asked for", shards(gib), small(), Options{Stages: 2}, "too few shards: 2 stages asked for, 1 shards there"},
		{"too little", shards(gib, gib+gib/10), large, Options{}, "not enough memory for large: it needs 3.2 GiB, the shards offer 2.1 GiB: 1.1 GiB missing"},
		{"nothing at all", shards(0, -5), large, Options{}, "not enough memory for large: it needs 3.2 GiB, the shards offer 0 B: 3.2 GiB missing"},
		{"no layer fits", shards(gib*9/10, gib*9/10, gib*9/10, gib*9/10), large, Options{},
			"not enough memory for large: it needs 3.2 GiB and the shards offer 3.6 GiB, but layer 0 needs 1.0 GiB on one shard and the largest offers 921.6 MiB: 102.4 MiB missing"},
		{"no cut fits", shards(gib*18/10, gib*18/10), large, Options{},
			"not enough memory for large: it needs 3.2 GiB and the shards offer 3.6 GiB, but however it is cut, layer 2 with the head fits nowhere: 1.2 GiB missing"},
		{"not on so many", shards(4*gib, gib/10), large, Options{Stages: 2},
			"not enough memory for large: it needs 3.2 GiB and the shards offer 4.1 GiB, but not cut into 2 stages that each hold a layer: 921.6 MiB missing"},
		{"no layers", shards(gib), Shape{Context: 1, Parallel: 1}, Options{}, "plan: the model has no layers"},
		{"no context", shards(gib), Shape{Layers: make([]LayerSize, 1)}, Options{}, "plan: a context of 0 positions for 0 sequences is not possible"},
		{"a cache beyond all bounds", shards(gib), Shape{Layers: []LayerSize{{Cache: math.MaxInt64}}, Context: 2, Parallel: 1}, Options{}, "plan: the sizes of layer 0 are not possible"},
		{"sizes beyond all bounds", shards(gib), Shape{Layers: slices.Repeat([]LayerSize{{Weights: maxBytes - 1}}, 2), Context: 2, Parallel: 1}, Options{}, "plan: the sizes of layer 1 are not possible"},
		{"a negative head", shards(gib), Shape{Layers: make([]LayerSize, 1), Head: -1, Context: 2, Parallel: 1}, Options{}, "plan: the sizes of embedding, head, norm or buffers are not possible"},
		{"stages beyond all bounds", shards(gib), small(), Options{Stages: 1000}, "plan: 1000 stages are not possible: ask for 1 to 256, or 0 for as many as help"},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan, err := Solve(test.roster, test.shape, nil, test.opts)
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v, %v\nwant %s", plan, err, test.want)
			}
		})
	}
	if _, err := Solve(nil, small(), nil, Options{}); !errors.Is(err, ErrNoShards) {
		t.Errorf("%v is not ErrNoShards", err)
	}
	if _, err := Solve(shards(gib), small(), nil, Options{Stages: 2}); !errors.Is(err, ErrFewShards) {
		t.Errorf("%v is not ErrFewShards", err)
	}
}

func TestReplanning(t *testing.T) {
	const gib = 1 << 30
	shape := small()
	four := shards(gib, gib, gib, gib)
	first := solve(t, four[:3], shape, nil, Options{Leader: "c"})
	if first.ID != (pass.PlanID{Number: 1, Leader: "c"}) {
		t.Errorf("the first plan is %s", first.ID)
	}

	t.Run("a shard more is worth it", func(t *testing.T) {
		next := solve(t, four, shape, first, Options{Leader: "c"})
		if len(next.Pipelines[0]) != 4 || next.ID.Number != 2 {
			t.Errorf("got %s", next)
		}
	})
	t.Run("a slow shard more is not", func(t *testing.T) {
		roster := slices.Clone(four)
		for i := range roster {
			roster[i].Speed = 20
		}
		roster[3].Address, roster[3].Speed = "10.0.0.9:7000", 1.9
		next, err := Solve(roster, shape, first, Options{Leader: "c"})
		if err != nil || next.ID != first.ID || !slices.Equal(next.Spares, []string{"s3"}) || len(first.Spares) != 0 {
			t.Errorf("got %v, %v; the first is now %s", next, err, first)
		}
	})
	t.Run("a lost shard is replaced where it was", func(t *testing.T) {
		for lost := range 3 {
			left := slices.Delete(slices.Clone(four), lost, lost+1)
			next := solve(t, left, shape, first, Options{Leader: "c"})
			if moved := movedLayers(first, next); moved != first.Pipelines[0][lost].Layers.Len() {
				t.Errorf("without s%d %d layers move: %s", lost, moved, next)
			}
		}
	})
	t.Run("a shard that came back elsewhere holds nothing", func(t *testing.T) {
		roster := slices.Clone(four[:3])
		roster[1].Address = "127.0.0.1:9999"
		next := solve(t, roster, shape, first, Options{Leader: "c"})
		if next.ID.Number != 2 || next.Pipelines[0][1].Address != "127.0.0.1:9999" {
			t.Errorf("got %s", next)
		}
	})
	t.Run("a shard with less memory than it needs is asked for less", func(t *testing.T) {
		roster := slices.Clone(four[:3])
		roster[0].Memory = 60 * mib
		if next := solve(t, roster, shape, first, Options{Leader: "c"}); next.ID.Number != 2 {
			t.Errorf("got %s", next)
		}
	})
	t.Run("another model is another plan", func(t *testing.T) {
		other := small()
		other.Model = "other"
		if next := solve(t, four[:3], other, first, Options{Leader: "c"}); next.Model != "other" {
			t.Errorf("got %s of %s", next, next.Model)
		}
	})
	t.Run("numbers go on after those that shards report", func(t *testing.T) {
		roster := slices.Clone(four[:3])
		roster[0].Plan, roster[1].Plan = 41, math.MaxUint64
		if next := solve(t, roster, shape, nil, Options{Leader: "c"}); next.ID.Number != 42 {
			t.Errorf("got %s", next.ID)
		}
	})
}

func movedLayers(before, after *Plan) int {
	moved := 0
	for _, s := range after.Pipelines[0] {
		held := model.Layers{}
		if _, place, ok := before.Stage(s.Shard); ok {
			held = before.Pipelines[0][place].Layers
		}
		moved += s.Layers.Len() - overlap(s.Layers, held)
	}
	return moved
}

func TestHeadroom(t *testing.T) {
	shape := small()
	for _, test := range []struct {
		name   string
		roster Roster
		want   string
	}{
		{"any one may go", shards(1<<30, 1<<30, 1<<30), "[s0 true s1 true s2 true]"},
		{"none may go", shards(150*mib, 150*mib, 80*mib), "[s0 false s1 false s2 true]"},
		{"the only one", shards(1 << 30), "[s0 false]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan := solve(t, test.roster, shape, nil, Options{})
			losses, err := Headroom(plan, test.roster, shape)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range losses {
				got = append(got, fmt.Sprint(l.Shard, " ", l.Survivable()))
			}
			if fmt.Sprint(got) != test.want {
				t.Errorf("got %v, want %s (%v)", got, test.want, losses)
			}
		})
	}
}

func TestStates(t *testing.T) {
	if got := fmt.Sprint(Joining, Loading, Ready, Draining); got != "joining loading ready draining" {
		t.Error(got)
	}
	if got := fmt.Sprint(Shard, Coordinator, Role(7), State(9)); got != "shard coordinator role 7 state 9" {
		t.Error(got)
	}
}

func TestRoute(t *testing.T) {
	plan := solve(t, shards(1<<30, 1<<30), small(), nil, Options{})
	for i, s := range Route(plan.Pipelines[0]) {
		if want := plan.Pipelines[0][i]; s.Shard != want.Shard || s.Address != want.Address || s.Layers != want.Layers {
			t.Errorf("stage %d is %+v on the route and %+v in the plan", i, s, want)
		}
	}
	var none *Plan
	if none.Compare(plan) >= 0 || plan.Compare(none) <= 0 || none.Compare(nil) != 0 || plan.Compare(plan) != 0 {
		t.Error("no plan does not come before every plan")
	}
}

func BenchmarkSolve(b *testing.B) {
	for _, n := range []int{3, 8, 16, 64} {
		for _, different := range []bool{false, true} {
			shape := small()
			shape.Layers = slices.Repeat(shape.Layers[:1], 256)
			var members []Member
			for i := range n {
				m := Member{Name: fmt.Sprintf("s%02d", i), Address: fmt.Sprintf("10.0.0.%d:7000", i), Memory: 1 << 40, Speed: 10}
				if different {
					m.Speed, m.Memory = 10+float64(i), int64(1<<30-i*mib)
				}
				members = append(members, m)
			}
			roster := NewRoster(members...)
			b.Run(fmt.Sprintf("shards=%d/different=%t", n, different), func(b *testing.B) {
				for b.Loop() {
					if _, err := Solve(roster, shape, nil, Options{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
