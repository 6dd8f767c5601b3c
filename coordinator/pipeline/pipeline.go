// Package pipeline moves passes through an ordered list of Hops.
//
// A Pipeline owns no weights and no sockets. Its caller, the coordinator, builds entries; the Pipeline numbers passes,
// keeps within the credit of every shard, and gives each result to whoever waits for it. A sequence's entries reach
// every stage in the order in which they were sent. When any hop dies, everything on its way ends with ErrBroken, and
// so does everything sent later: a Pipeline is not repaired but replaced. Several pipelines may visit the same shards, in any
// order: they share Ports, which keep the credit and the results of each.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/pass"
)

// Config describes a pipeline.
type Config struct {
	Coordinator string
	Plan        pass.PlanID
	Stages      []pass.Stage   // in order
	Ports       []*Port        // one a stage, in the same order; their hops are ready
	Hidden      int            // float32 values of one position's activations
	Passes      *atomic.Uint64 // counts the coordinator's passes, over all its pipelines
}

// Pipeline is a chain of stages that covers the model.
type Pipeline struct {
	cfg     Config
	account account // of every stage's shard
	limit   int64   // bytes that fit the credit of every stage

	broken chan struct{} // closed once, after err is set

	mu      sync.Mutex
	waiting map[uint64]*Ticket // by pass number
	owed    owed
	err     error

	send sync.Mutex // keeps passes in the order of their numbers
}

// New makes a pipeline of hops that have loaded the plan's blocks. It carries passes while Run runs.
func New(cfg Config) (*Pipeline, error) {
	if len(cfg.Stages) == 0 || len(cfg.Stages) != len(cfg.Ports) {
		return nil, fmt.Errorf("pipeline of %d stages and %d hops", len(cfg.Stages), len(cfg.Ports))
	}
	p := &Pipeline{cfg: cfg, broken: make(chan struct{}), waiting: make(map[uint64]*Ticket)}
	for i, port := range slices.SortedFunc(slices.Values(cfg.Ports), func(a, b *Port) int { return strings.Compare(a.Shard(), b.Shard()) }) {
		c := port.credits()
		if c.grant.Passes < 1 || c.grant.Bytes < int64(cfg.Hidden)*4 {
			return nil, fmt.Errorf("shard %s grants %d passes and %d bytes, too little for one position", port.Shard(), c.grant.Passes, c.grant.Bytes)
		}
		if i == 0 || c.grant.Bytes < p.limit {
			p.limit = c.grant.Bytes
		}
		p.account = append(p.account, c)
	}
	return p, nil
}

// Plan names the plan whose pipeline this is.
func (p *Pipeline) Plan() pass.PlanID { return p.cfg.Plan }

// Stages is the number of stages.
func (p *Pipeline) Stages() int { return len(p.cfg.Stages) }

// Broken is closed when the pipeline can carry nothing more.
func (p *Pipeline) Broken() <-chan struct{} { return p.broken }

// MaxPositions is how many positions a pass may have at most.
func (p *Pipeline) MaxPositions() int {
	return min(int(p.limit/int64(4*p.cfg.Hidden)), pass.MaxCount)
}

// Run watches the hops until ctx ends or the pipeline breaks, and returns why. A broken pipeline returns an error that wraps
// ErrBroken and names the shard.
func (p *Pipeline) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	last := p.cfg.Ports[len(p.cfg.Ports)-1]
	for _, h := range p.cfg.Ports {
		g.Go(func() error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-h.Done():
				return fmt.Errorf("shard %s: %w: %w", h.Shard(), ErrBroken, h.Err())
			}
		})
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-last.ended:
			return fmt.Errorf("results of shard %s: %w: %w", last.Shard(), ErrBroken, last.err)
		case <-p.broken:
			return p.Err()
		}
	})
	err := g.Wait()
	if errors.Is(err, ErrBroken) {
		p.breakWith(err)
	} else {
		p.Break(err) // its time is over, and so is that of what is on its way
	}
	return err
}

// Break ends the pipeline for a reason that its hops cannot see, such as a fault that a shard reports of a link.
func (p *Pipeline) Break(err error) { p.breakWith(fmt.Errorf("%w: %w", ErrBroken, err)) }

// breakWith also gives back the credit of what is lost: the hops that live go on with other pipelines.
func (p *Pipeline) breakWith(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = err
		close(p.broken)
	}
	lost := p.waiting
	p.waiting = nil
	p.mu.Unlock()
	for _, t := range lost {
		t.last.forget(t)
		p.account.give(t.bytes)
	}
}

// Err says why the pipeline is broken, nil while it is not.
func (p *Pipeline) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Begin opens an epoch of a sequence at every stage, and returns what each holds of it. It waits for all of them even when ctx ends or one fails: a Begin
// that is still on its way could overtake, or be overtaken by, the Release that follows.
func (p *Pipeline) Begin(ctx context.Context, begin pass.Begin) ([]pass.Begun, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	begin.Plan = p.cfg.Plan
	begun := make([]pass.Begun, len(p.cfg.Ports))
	err := p.each(func(stage int, h Hop) (err error) {
		begun[stage], err = h.Begin(context.WithoutCancel(ctx), begin)
		return err
	})
	return begun, err
}

// Release frees a sequence's caches at every stage that can be reached, whatever becomes of the others.
func (p *Pipeline) Release(ctx context.Context, sequence pass.SequenceID) error {
	return p.each(func(_ int, h Hop) error { return h.Release(ctx, sequence) })
}

// each asks every hop at once and waits for all. One that fails ends nothing for the others.
func (p *Pipeline) each(do func(stage int, h Hop) error) error {
	defer p.asks()()
	var g errgroup.Group
	for i, h := range p.cfg.Ports {
		g.Go(func() error {
			if err := do(i, h); err != nil {
				return fmt.Errorf("shard %s: %w", h.Shard(), err)
			}
			return nil
		})
	}
	return g.Wait()
}

// A Ticket stands for a pass on its way.
type Ticket struct {
	p         *Pipeline
	last      *Port // where its result will come
	number    uint64
	positions int
	bytes     int64
	sent      time.Time
	result    chan *pass.Result // capacity 1
}

// Send starts a pass, waiting only for credit. The entries' Tokens must not change until the result is there. Every
// ticket must be waited for or abandoned.
func (p *Pipeline) Send(ctx context.Context, trace Trace, entries []pass.Entry) (*Ticket, error) {
	return p.start(ctx, 0, &pass.Pass{TraceParent: trace.Parent, TraceState: trace.State, Entries: entries})
}

// Replay starts a pass that fills in layers that were lost. It begins at the stage, counted from 0, that has the log of what
// enters the first of them; at the first stage if that is layer 0.
func (p *Pipeline) Replay(ctx context.Context, trace Trace, layers model.Layers, stage int, entries []pass.Entry) (*Ticket, error) {
	if stage < 0 || stage >= len(p.cfg.Ports) {
		return nil, fmt.Errorf("replay from stage %d of %d", stage, len(p.cfg.Ports))
	}
	return p.start(ctx, stage, &pass.Pass{TraceParent: trace.Parent, TraceState: trace.State, Replay: layers, Entries: entries})
}

// start sends a pass to one of the stages, from which it goes on to the last.
func (p *Pipeline) start(ctx context.Context, stage int, out *pass.Pass) (*Ticket, error) {
	out.Coordinator, out.Plan, out.Route = p.cfg.Coordinator, p.cfg.Plan, p.cfg.Stages[stage:]
	t := &Ticket{p: p, last: p.cfg.Ports[len(p.cfg.Ports)-1], positions: out.Positions(), result: make(chan *pass.Result, 1)}
	t.bytes = int64(t.positions) * int64(p.cfg.Hidden) * 4
	if t.bytes > p.limit {
		return nil, fmt.Errorf("pass of %d bytes of rows, above the shards' credit of %d", t.bytes, p.limit)
	}
	if err := p.acquire(ctx, t.bytes); err != nil {
		return nil, err
	}
	p.send.Lock()
	defer p.send.Unlock()
	t.number = p.cfg.Passes.Add(1)
	out.Number = t.number
	t.last.expect(t)
	p.mu.Lock()
	err := p.err // the credit may have come from a pass that was lost
	if err == nil {
		t.sent = time.Now()
		p.waiting[t.number] = t
	}
	p.mu.Unlock()
	if err != nil {
		t.last.forget(t)
		p.account.give(t.bytes)
		return nil, err
	}
	if err := p.cfg.Ports[stage].Send(out); err != nil {
		// Passes sent before may be lost as well, and nobody but those who wait for them would ever notice.
		p.breakWith(fmt.Errorf("send a pass to shard %s: %w: %w", p.cfg.Ports[stage].Shard(), ErrBroken, err))
		return nil, p.Err()
	}
	return t, nil
}

// Trace is a W3C trace context.
type Trace struct{ Parent, State string }

// acquire waits for credit, as long as the pipeline is whole.
func (p *Pipeline) acquire(ctx context.Context, bytes int64) error {
	if p.account.try(bytes) {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-p.broken:
			cancel(p.Err())
		case <-stop:
		}
	}()
	if err := p.account.take(ctx, bytes); err != nil {
		return context.Cause(ctx)
	}
	return nil
}

// Wait returns the result of the pass. If ctx ends first, the pass goes on, and its result is dropped.
func (t *Ticket) Wait(ctx context.Context) (*pass.Result, error) {
	select {
	case r := <-t.result:
		return r, nil
	case <-t.p.broken:
		select {
		case r := <-t.result:
			return r, nil
		default:
		}
		return nil, t.p.Err()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// receive gives the credit of a pass back and its result to whoever waits, unless the pipeline has broken meanwhile.
func (p *Pipeline) receive(t *Ticket, r *pass.Result) {
	p.mu.Lock()
	waited := p.waiting[t.number] == t
	if waited {
		p.owed.came(t, time.Now())
		delete(p.waiting, t.number)
	}
	p.mu.Unlock()
	if waited {
		t.last.forget(t)
		p.account.give(t.bytes)
		t.result <- r
	}
}
