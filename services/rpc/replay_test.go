package rpc_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// place is a stage of the plan that follows a loss: a worker of the line before, or, beyond its last, a new one.
type place struct {
	worker      int
	first, last model.LayerIndex
}

// recovery is a loss in a line of three stages, layers 0, 1-2 and 3, and what is done about it.
type recovery struct {
	name   string
	lost   int // worker
	places []place
	replay model.Layers
	from   int // the stage that the replay begins at
}

var recoveries = []recovery{
	{name: "a spare takes the first block", lost: 0, places: []place{{3, 0, 1}, {1, 1, 3}, {2, 3, 4}}, replay: model.Layers{First: 0, Last: 1}},
	{name: "a spare takes the middle", lost: 1, places: []place{{0, 0, 1}, {3, 1, 3}, {2, 3, 4}}, replay: model.Layers{First: 1, Last: 3}},
	{name: "a spare takes the last block", lost: 2, places: []place{{0, 0, 1}, {1, 1, 3}, {3, 3, 4}}, replay: model.Layers{First: 3, Last: 4}, from: 1},
	{name: "the first takes the middle", lost: 1, places: []place{{0, 0, 3}, {2, 3, 4}}, replay: model.Layers{First: 1, Last: 3}},
	{name: "the last takes the middle", lost: 1, places: []place{{0, 0, 1}, {2, 1, 4}}, replay: model.Layers{First: 1, Last: 3}},
	{name: "both share the middle", lost: 1, places: []place{{0, 0, 2}, {2, 2, 4}}, replay: model.Layers{First: 1, Last: 3}},
	{name: "the middle takes the first block", lost: 0, places: []place{{1, 0, 3}, {2, 3, 4}}, replay: model.Layers{First: 0, Last: 1}},
	{name: "the middle takes the last block", lost: 2, places: []place{{0, 0, 1}, {1, 1, 4}}, replay: model.Layers{First: 3, Last: 4}, from: 1},
	{name: "one more stage", lost: 1, places: []place{{0, 0, 1}, {3, 1, 2}, {4, 2, 3}, {2, 3, 4}}, replay: model.Layers{First: 1, Last: 3}},
	{name: "from the tokens, though there are logs", lost: 1, places: []place{{0, 0, 1}, {3, 1, 3}, {2, 3, 4}}, replay: model.Layers{First: 0, Last: 3}},
}

// TestReplay: after a loss, survivors keep the weights and the caches of their layers under the next plan, the lost layers
// alone are computed again from the log before them, and the bits are those of a line that lost nothing.
func TestReplay(t *testing.T) {
	for _, name := range []string{"llama", "olmo2", "qwen3"} {
		g := openGolden(t, name)
		ids := g.Prompts["short"].TokenIDs
		ids = append(slices.Clone(ids), g.Prompts["short"].GreedyIDs...)
		before := len(ids) - 7
		want := startLine(t, g.path, 1, kvcache.F16, workerOptions{}).prompt(t, 1, ids, len(ids))
		for _, r := range recoveries {
			t.Run(name+"/"+r.name, func(t *testing.T) {
				l := startCut(t, g.path, func(int) []int { return []int{0, 1, 3, 4} }, kvcache.F16, workerOptions{})
				l.begin(t, 1, len(ids))
				for _, part := range [][2]int{{0, 9}, {9, before}} {
					if out := l.run(t, 1, token.Position(part[0]), ids[part[0]:part[1]], pass.Wants{}); out.Refused != nil {
						t.Fatal(out.Refused)
					}
				}
				l.workers[r.lost].kill()
				<-l.ended
				l.recover(t, g, r, ids[:before])
				out := l.run(t, 1, token.Position(before), ids[before:], pass.Wants{Logits: true})
				if out.Refused != nil {
					t.Fatal(out.Refused)
				}
				if !sameBits(out.Logits, want[before*l.vocab:]) {
					t.Error("other bits after the replay")
				}
			})
		}
	}
}

// recover makes the next plan's line of the one that was lost, and replays the tokens.
func (l *line) recover(t *testing.T, g *golden, r recovery, tokens []token.ID) {
	t.Helper()
	next := pass.PlanID{Number: 2, Leader: "test"}
	pc := pipeline.Config{Coordinator: "test", Plan: next, Hidden: g.Shape.H, Passes: new(atomic.Uint64)}
	pc.Passes.Store(1000)
	for i, p := range r.places {
		for len(l.workers) <= p.worker {
			w := startWorker(t, fmt.Sprintf("s%d", len(l.workers)), g.path, workerOptions{})
			h := dial(t, w, nil)
			l.workers, l.hops, l.ports = append(l.workers, w), append(l.hops, h), append(l.ports, port(t, h))
		}
		w, h, layers := l.workers[p.worker], l.hops[p.worker], model.Layers{First: p.first, Last: p.last}
		read := int64(0)
		err := h.Load(t.Context(), pass.Load{
			Plan: next, Layers: layers, First: i == 0, Last: i == len(r.places)-1, Model: "golden", Context: 256, Parallel: 4, CacheType: kvcache.F16,
		}, func(p pass.LoadProgress) { read = max(read, p.Total) })
		if err != nil {
			t.Fatal(err)
		}
		if old := (model.Layers{First: model.LayerIndex([]int{0, 1, 3}[min(2, p.worker)]), Last: model.LayerIndex([]int{1, 3, 4}[min(2, p.worker)])}); p.worker < 3 && layers == old && read > 0 {
			t.Errorf("shard %s read %d bytes of what it had", w.name, read)
		}
		if p.worker < 3 {
			defer h.Unload(t.Context(), planID)
		}
		pc.Ports = append(pc.Ports, l.ports[p.worker])
		pc.Stages = append(pc.Stages, pass.Stage{Shard: w.name, Address: w.address, Layers: layers})
	}
	var err error
	if l.Pipeline, err = pipeline.New(pc); err != nil {
		t.Fatal(err)
	}
	l.ended = run(t, l.Pipeline)
	begun, err := l.Begin(t.Context(), pass.Begin{Sequence: 1, Epoch: 2, Keep: token.Position(len(tokens)), Tokens: tokens, Prompt: len(tokens)})
	if err != nil {
		t.Fatal(err)
	}
	l.expect(t, r, begun, len(tokens))
	l.turn[1], l.epoch = 0, 2
	for first := 0; first < len(tokens); first += 8 {
		part := tokens[first:min(first+8, len(tokens))]
		ticket, err := l.Replay(t.Context(), pipeline.Trace{}, r.replay, r.from, []pass.Entry{{
			Sequence: 1, Epoch: 2, First: token.Position(first), Count: len(part), Tokens: part,
		}})
		if err != nil {
			t.Fatal(err)
		}
		result, err := ticket.Wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if refused := result.Outputs[0].Refused; refused != nil {
			t.Fatal(refused)
		}
	}
}

// expect checks what the stages say they hold before the replay: everything but what was lost.
func (l *line) expect(t *testing.T, r recovery, begun []pass.Begun, positions int) {
	t.Helper()
	lost := []model.Layers{{First: 0, Last: 1}, {First: 1, Last: 3}, {First: 3, Last: 4}}[r.lost]
	for stage, b := range begun {
		at := r.places[stage].first
		for _, span := range b.Cached {
			if span.Layers.First != at {
				t.Errorf("stage %d holds %v: a gap before layer %d", stage, b.Cached, span.Layers.First)
			}
			at = span.Layers.Last
			want := positions
			if span.Layers.First >= lost.First && span.Layers.Last <= lost.Last {
				want = 0
			}
			if int(span.Positions) != want {
				t.Errorf("stage %d holds %d positions of layers %v, want %d", stage, span.Positions, span.Layers, want)
			}
		}
		if at != r.places[stage].last {
			t.Errorf("stage %d holds %v, it ends at layer %d", stage, b.Cached, r.places[stage].last)
		}
		for _, log := range b.Logs {
			if int(log.Positions) != positions {
				t.Errorf("stage %d has a log of %d positions", stage, log.Positions)
			}
		}
	}
	if r.replay.First == 0 {
		return
	}
	if !slices.ContainsFunc(begun[r.from].Logs, func(log pass.Log) bool { return log.Before == r.replay.First }) {
		t.Errorf("stage %d has the logs %v, none of what enters layer %d", r.from, begun[r.from].Logs, r.replay.First)
	}
}
