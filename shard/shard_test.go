package shard_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
	"github.com/daisy-llm/daisy/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	modelFile = "../model/testdata/golden/llama/model.gguf"
)

// wire is an Outlet that keeps what comes out.
type wire struct {
	results  chan *pass.Result
	forwards chan *pass.Pass
	returned func(*pass.Result) // in the shard's loop, if set
}

func (w *wire) Forward(p *pass.Pass) { w.forwards <- p }
func (w *wire) Return(_ string, r *pass.Result) {
	if w.returned != nil {
		w.returned(r)
	}
	w.results <- r
}

// start makes a shard with its outlet; run lets it work, until the test ends.
func start(t *testing.T, change func(*shard.Config)) (s *shard.Shard, w *wire, run func()) {
	t.Helper()
	w = &wire{results: make(chan *pass.Result, 64), forwards: make(chan *pass.Pass, 64)}
	cfg := shard.Config{
		Name: "s", Kernels: kernel.Best(), Threads: 1, Grant: pass.Grant{Passes: 2, Bytes: 1 << 20},
		Open:   func(context.Context, pass.Load) (*gguf.File, error) { return gguf.Open(modelFile) },
		Outlet: w, Rows: &pass.RowPool{}, Tracer: noop.NewTracerProvider().Tracer(""), Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	s, err := shard.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, w, func() {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); s.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-ended })
	}
}

var planID = pass.PlanID{Number: 1, Leader: "c"}

// whole asks for the whole model.
func whole(plan pass.PlanID) pass.Load {
	return pass.Load{Plan: plan, Layers: model.Layers{Last: 4}, First: true, Last: true, Context: 64, Parallel: 2}
}

func quiet(pass.LoadProgress) {}

func load(t *testing.T, s *shard.Shard, l pass.Load) {
	t.Helper()
	if err := s.Load(t.Context(), l, quiet); err != nil {
		t.Fatal(err)
	}
}

func begin(t *testing.T, s *shard.Shard, coordinator string, id pass.SequenceID) {
	t.Helper()
	if _, err := s.Begin(t.Context(), coordinator, pass.Begin{Sequence: id, Epoch: 1, Plan: planID}); err != nil {
		t.Fatal(err)
	}
}

// step is a pass of one sequence over the whole model.
func step(coordinator string, id pass.SequenceID, turn uint32, tokens ...token.ID) *pass.Pass {
	return &pass.Pass{
		Number: uint64(turn) + 1, Coordinator: coordinator, Plan: planID,
		Route: []pass.Stage{{Shard: "s", Layers: model.Layers{Last: 4}}},
		Entries: []pass.Entry{{Sequence: id, Epoch: 1, Turn: turn, First: 0, Count: len(tokens), Tokens: tokens,
			Wants: pass.Wants{Token: true}}},
	}
}

// TestAResultComesWithItsCredit: the coordinator may send the next pass as soon as it sees a result, which may be before
// the shard's loop goes on.
func TestAResultComesWithItsCredit(t *testing.T) {
	s, w, run := start(t, func(c *shard.Config) { c.Grant.Passes = 1 })
	next := make(chan error, 1)
	w.returned = func(*pass.Result) {
		w.returned = nil
		next <- s.Submit(step("c", 1, 1, 5))
	}
	run()
	load(t, s, whole(planID))
	begin(t, s, "c", 1)
	if err := s.Submit(step("c", 1, 0, 4)); err != nil {
		t.Fatal(err)
	}
	if err := <-next; err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r := <-w.results; r.Outputs[0].Choice == nil {
			t.Errorf("%+v", r.Outputs[0].Refused)
		}
	}
}

func TestCreditIsEachCoordinatorsOwn(t *testing.T) {
	s, w, run := start(t, nil)
	rows := func(name string, bytes int) *pass.Pass {
		p := step(name, 1, 0, 4)
		p.Rows = make([]float32, bytes/4)
		return p
	}
	submit := func(p *pass.Pass, busy bool) {
		t.Helper()
		if err := s.Submit(p); errors.Is(err, shard.ErrBusy) != busy || !busy && err != nil {
			t.Errorf("a pass of %d bytes by %s: %v", len(p.Rows)*4, p.Coordinator, err)
		}
	}
	submit(rows("a", 1<<20+4), true)
	submit(rows("a", 1<<19), false)
	submit(rows("a", 1<<19+4), true)
	submit(rows("a", 1<<19), false)
	submit(rows("a", 0), true)
	for _, name := range []string{"b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"} {
		submit(rows(name, 1<<20), false)
		submit(rows(name, 0), false)
	}
	submit(rows("a seventeenth", 0), true)
	run()
	for range 32 { // without a block all are refused, which gives the credit back
		if r := <-w.results; r.Outputs[0].Refused.Reason != pass.ReasonPlan {
			t.Errorf("%+v", r.Outputs[0])
		}
	}
	submit(rows("a seventeenth", 1<<20), false)
	<-w.results
}

func TestTwoCoordinatorsShareABlock(t *testing.T) {
	s, w, run := start(t, nil)
	run()
	load(t, s, whole(planID))
	begin(t, s, "a", 1)
	begin(t, s, "b", 1)
	if _, err := s.Begin(t.Context(), "a", pass.Begin{Sequence: 2, Epoch: 1, Plan: planID}); err == nil {
		t.Error("three sequences have a place in a block for two")
	}
	answer := func(p *pass.Pass) pass.Output {
		t.Helper()
		if err := s.Submit(p); err != nil {
			t.Fatal(err)
		}
		return (<-w.results).Outputs[0]
	}
	if a, b := answer(step("a", 1, 0, 4, 5)), answer(step("b", 1, 0, 4, 5)); a.Choice == nil || b.Choice == nil || a.Choice.Token != b.Choice.Token {
		t.Errorf("%+v, then %+v", a, b)
	}
	if err := s.Drop(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if out := answer(step("a", 1, 1, 6)); out.Refused == nil || out.Refused.Reason != pass.ReasonNoSequence {
		t.Errorf("a dropped sequence gives %+v", out)
	}
	if out := answer(step("b", 1, 1, 6)); out.Choice == nil {
		t.Errorf("the other coordinator's sequence gives %+v", out.Refused)
	}
	begin(t, s, "a", 2)
}

func TestUnloadFreesWhatRuns(t *testing.T) {
	s, w, run := start(t, nil)
	run()
	l := whole(planID)
	load(t, s, l)
	load(t, s, l) // held already
	other := l
	other.Context = 32
	if err := s.Load(t.Context(), other, quiet); err == nil {
		t.Error("another block was loaded under the name of one that is there")
	}
	begin(t, s, "c", 1)
	if err := s.Unload(t.Context(), planID); err != nil {
		t.Fatal(err)
	}
	if err := s.Submit(step("c", 1, 0, 4)); err != nil {
		t.Fatal(err)
	}
	if out := (<-w.results).Outputs[0]; out.Refused == nil || out.Refused.Reason != pass.ReasonPlan {
		t.Errorf("without its block a pass gives %+v", out)
	}
	load(t, s, other)
	blocks, _, err := s.Blocks(t.Context())
	if err != nil || len(blocks) != 1 || blocks[0].Sequences != 0 || blocks[0].Cached != 0 {
		t.Errorf("%+v, %v", blocks, err)
	}
	begin(t, s, "c", 1)
}

// TestUnloadEndsALoad: a plan that is given up must not be found loaded later on.
func TestUnloadEndsALoad(t *testing.T) {
	opening := make(chan struct{})
	s, _, run := start(t, func(c *shard.Config) {
		c.Open = func(ctx context.Context, _ pass.Load) (*gguf.File, error) {
			opening <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	run()
	ended := make(chan error, 1)
	go func() { ended <- s.Load(t.Context(), whole(planID), quiet) }()
	<-opening
	if err := s.Load(t.Context(), whole(planID), quiet); err == nil {
		t.Error("one plan's block is loaded twice at once")
	}
	if err := s.Unload(t.Context(), planID); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the load ended with %v", err)
	}
	if blocks, _, err := s.Blocks(t.Context()); err != nil || len(blocks) != 0 {
		t.Errorf("%+v, %v", blocks, err)
	}
}

// TestBlocksShareTheMemory: two blocks that fit alone do not fit together.
func TestBlocksShareTheMemory(t *testing.T) {
	need := int64(0)
	for memory := int64(1 << 16); ; memory += 1 << 14 {
		s, _, run := start(t, func(c *shard.Config) { c.Memory = memory })
		run()
		err := s.Load(t.Context(), whole(planID), quiet)
		if err == nil {
			need = memory
			break
		}
		if !errors.Is(err, shard.ErrMemory) {
			t.Fatal(err)
		}
	}
	s, _, run := start(t, func(c *shard.Config) { c.Memory = need + need/2 })
	run()
	second := whole(pass.PlanID{Number: 2, Leader: "c"})
	second.Context-- // so that it shares nothing with the first
	load(t, s, whole(planID))
	if err := s.Load(t.Context(), second, quiet); !errors.Is(err, shard.ErrMemory) {
		t.Errorf("a second block of the same size gives %v", err)
	}
	third := whole(pass.PlanID{Number: 3, Leader: "c"}) // has all that it needs from the first
	load(t, s, third)
	if err := s.Unload(t.Context(), third.Plan); err != nil {
		t.Fatal(err)
	}
	load(t, s, pass.Load{Plan: pass.PlanID{Leader: "c"}, Context: 64, Parallel: 2}) // a trial takes nothing
	if err := s.Unload(t.Context(), planID); err != nil {
		t.Fatal(err)
	}
	load(t, s, second)

	// What was on offer may be gone when it is asked for.
	room, unknown := need-1<<14, error(nil)
	s, _, run = start(t, func(c *shard.Config) {
		c.Memory, c.Room = 2*need, func() (int64, error) { return room, unknown }
	})
	run()
	load(t, s, pass.Load{Plan: pass.PlanID{Leader: "c"}, Context: 64, Parallel: 2})
	if err := s.Load(t.Context(), whole(planID), quiet); !errors.Is(err, shard.ErrMemory) || !strings.Contains(err.Error(), "other programs") {
		t.Errorf("a block that is larger than what is left gives %v", err)
	}
	room = need
	load(t, s, whole(planID))
	load(t, s, third) // shares all of it
	unknown = errors.New("nobody knows")
	if err := s.Load(t.Context(), second, quiet); err != nil {
		t.Errorf("on a system that does not say what is left: %v", err)
	}
}
