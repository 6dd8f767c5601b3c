package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// oneFrame is the least window that gRPC lets one set.
const oneFrame = 64 << 10

// TestOppositeOrders: two coordinators visit two shards in opposite order, with rows that fill every window between them,
// in both directions at once, and results as large. If receiving waited for sending anywhere, each shard would wait for
// the other to read.
func TestOppositeOrders(t *testing.T) {
	const positions, sequences, passes = 256, 3, 8
	g := openGolden(t, "llama")
	o := workerOptions{window: oneFrame, grant: pass.Grant{Passes: sequences, Bytes: sequences * positions * 64 * 4}}
	workers := []*worker{startWorker(t, "a", g.path, o), startWorker(t, "b", g.path, o)}
	halves := []model.Layers{{First: 0, Last: 2}, {First: 2, Last: 4}}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for c := range 2 {
		name := fmt.Sprint("c", c)
		pc := pipeline.Config{Coordinator: name, Plan: pass.PlanID{Number: 1, Leader: name}, Hidden: g.Shape.H, Passes: new(atomic.Uint64)}
		for i, layers := range halves {
			w := workers[(c+i)%2]
			h := dialAs(t, name, w, o, nil)
			err := h.Load(ctx, pass.Load{Plan: pc.Plan, Layers: layers, First: i == 0, Last: i == 1, Context: positions, Parallel: 2 * sequences}, func(pass.LoadProgress) {})
			if err != nil {
				t.Fatal(err)
			}
			pc.Ports = append(pc.Ports, port(t, h))
			pc.Stages = append(pc.Stages, pass.Stage{Shard: w.name, Address: w.address, Layers: layers})
		}
		p, err := pipeline.New(pc)
		if err != nil {
			t.Fatal(err)
		}
		run(t, p)
		for id := range pass.SequenceID(sequences) {
			all.Go(func() {
				if _, err := p.Begin(ctx, pass.Begin{Sequence: id, Epoch: 1}); err != nil {
					t.Error(err)
					return
				}
				for turn := range uint32(passes) {
					ticket, err := p.Send(ctx, pipeline.Trace{}, []pass.Entry{{
						Sequence: id, Epoch: 1, Turn: turn, Count: positions, Tokens: make([]token.ID, positions), Wants: pass.Wants{Hidden: true},
					}})
					if err != nil {
						t.Error(err)
						return
					}
					r, err := ticket.Wait(ctx)
					if err != nil {
						t.Error(err)
						return
					}
					if len(r.Outputs[0].Hidden) != positions*g.Shape.H {
						t.Errorf("sequence %d of %s, turn %d: %v", id, name, turn, r.Outputs[0].Refused)
						return
					}
				}
			})
		}
	}
	all.Wait()
}

// TestAPipelineReplacesAnother: over the same hops, with the same last stage, every result reaches the newest pipeline, whether
// or not the one before has ended.
func TestAPipelineReplacesAnother(t *testing.T) {
	g := openGolden(t, "llama")
	l := startLine(t, g.path, 2, kvcache.F16, workerOptions{})
	l.begin(t, 1, 0)
	l.run(t, 1, 0, []token.ID{1}, pass.Wants{})
	passes := new(atomic.Uint64)
	passes.Store(1000)
	current := l.Pipeline
	for turn := range uint32(200) {
		current.Break(errors.New("a new plan replaces it"))
		pc := pipeline.Config{Coordinator: "test", Plan: planID, Hidden: g.Shape.H, Passes: passes}
		for i, w := range l.workers {
			pc.Ports = append(pc.Ports, l.ports[i])
			pc.Stages = append(pc.Stages, pass.Stage{Shard: w.name, Address: w.address, Layers: model.Layers{First: model.LayerIndex(2 * i), Last: model.LayerIndex(2*i + 2)}})
		}
		next, err := pipeline.New(pc)
		if err != nil {
			t.Fatal(err)
		}
		current = next
		run(t, next)
		ticket, err := next.Send(t.Context(), pipeline.Trace{}, []pass.Entry{{Sequence: 1, Epoch: 1, Turn: turn + 1, First: 1, Count: 1, Tokens: []token.ID{2}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		r, err := ticket.Wait(ctx)
		cancel()
		if err != nil || r.Outputs[0].Refused != nil {
			t.Fatalf("pipeline %d: %v, %+v", turn, err, r)
		}
	}
}

// TestARefusedStreamEndsItsHop: passes that were sent before over the same stream may be lost, and nobody may wait for
// them for ever.
func TestARefusedStreamEndsItsHop(t *testing.T) {
	g := openGolden(t, "llama")
	l := startLine(t, g.path, 1, kvcache.F16, workerOptions{})
	bad := &pass.Pass{Number: 1, Coordinator: "test", Plan: planID, Route: []pass.Stage{{Shard: "another"}}}
	if err := l.hops[0].Send(bad); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.Broken():
	case <-time.After(10 * time.Second):
		t.Fatal("nobody noticed")
	}
}

// TestALoadThatIsGivenUpTakesNoMemory: whenever it is given up, the Unload that follows ends it, and the next plan finds all
// the memory free.
func TestALoadThatIsGivenUpTakesNoMemory(t *testing.T) {
	g := openGolden(t, "llama")
	load := pass.Load{Layers: model.Layers{Last: 4}, First: true, Last: true, Context: 64, Parallel: 1}
	memory := int64(1 << 16)
	for { // the least that the block needs
		h := dial(t, startWorker(t, "s", g.path, workerOptions{memory: memory}), nil)
		err := h.Load(t.Context(), load, func(pass.LoadProgress) {})
		if err == nil {
			break
		}
		if !errors.Is(err, pipeline.ErrMemory) {
			t.Fatal(err)
		}
		memory += memory / 4
	}
	h := dial(t, startWorker(t, "s", g.path, workerOptions{memory: memory}), nil)
	for i := range uint64(100) {
		ctx, cancel := context.WithCancel(t.Context())
		load.Plan.Number = 2*i + 1
		ended := make(chan error, 1)
		go func() { ended <- h.Load(ctx, load, func(pass.LoadProgress) {}) }()
		if i%2 == 0 {
			runtime.Gosched()
		}
		cancel()
		<-ended
		if err := h.Unload(t.Context(), load.Plan); err != nil {
			t.Fatal(err)
		}
		load.Plan.Number++
		if err := h.Load(t.Context(), load, func(pass.LoadProgress) {}); err != nil {
			t.Fatal(err)
		}
		if err := h.Unload(t.Context(), load.Plan); err != nil {
			t.Fatal(err)
		}
	}
}

// TestACoordinatorKeepsItsPlan: another one cannot take the block away while it is connected.
func TestACoordinatorKeepsItsPlan(t *testing.T) {
	g := openGolden(t, "llama")
	w := startWorker(t, "s", g.path, workerOptions{})
	owner, other := dialAs(t, "test", w, workerOptions{}, nil), dialAs(t, "other", w, workerOptions{}, nil)
	load := pass.Load{Plan: planID, Layers: model.Layers{Last: 4}, First: true, Last: true, Context: 64, Parallel: 1}
	if err := owner.Load(t.Context(), load, func(pass.LoadProgress) {}); err != nil {
		t.Fatal(err)
	}
	if err := other.Unload(t.Context(), planID); err == nil {
		t.Error("a coordinator's plan was unloaded by another")
	}
	if _, err := owner.Begin(t.Context(), pass.Begin{Sequence: 1, Epoch: 1, Plan: planID}); err != nil {
		t.Error(err)
	}
	heir := pass.PlanID{Number: 1, Leader: "gone"}
	load.Plan = heir
	if err := other.Load(t.Context(), load, func(pass.LoadProgress) {}); err != nil {
		t.Fatal(err)
	}
	if err := other.Unload(t.Context(), heir); err != nil {
		t.Errorf("the plan of a coordinator that is gone: %v", err)
	}
}
