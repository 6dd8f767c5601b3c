// Package coordinator is the life of a generation: it plans who holds what, has it loaded, admits requests, and drives
// each one's tokens through the pipeline. It knows no sockets and no protobuf: shards are reached over Links that
// services/rpc provides, and membership arrives as rosters from services/cluster. services/gateway is its caller.
//
// One loop, Run, owns members, links and the plan. Generations run in their callers' goroutines, each on a route: a pipeline
// through one holder of each block. A lost shard breaks the routes that it was on. Where its block has another holder, other
// routes lead through that at once; else a new plan over the shards that are left is loaded. The generations begin new epochs
// there, oldest first, and go on where they were. While a plan works, a better one is loaded beside it, or one without shards
// that shall leave; the generations then move, one at a time and between two tokens, and nothing stops.
//
// Invariant: an answer is the one that would have come undisturbed, each token of it once; it is never a success unless it
// is one; whatever ends a generation early is an error.
package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/tokenizer"
	"github.com/daisy-llm/daisy/pass"
)

// A Link is a Hop with the life of its own that the coordinator gives it.
type Link interface {
	pipeline.Hop
	// Run keeps the link alive until ctx ends or it dies, and returns why.
	Run(ctx context.Context) error
	// Ready is closed when the hop may be used.
	Ready() <-chan struct{}
	// Probe asks the shard for a sign of life, which it gives also while it computes.
	Probe(ctx context.Context) (steps uint64, queued int, err error)
}

// Config describes a coordinator.
type Config struct {
	Name      string // unique in the cluster, and new in every life of the process
	Version   string
	Model     *model.Config
	Shape     plan.Shape // of the model, with context and parallel sequences
	Load      pass.Load  // what all shards' Loads have in common: all but plan, layers and ends
	Tokenizer *tokenizer.Tokenizer

	Shards     int // that the first plan waits for, and no longer; 0: one, and those that come soon after it
	MaxWaiting int // requests that may wait for one of Shape.Parallel places; more are refused with ErrBusy

	// RecoveryTimeout is how long a generation waits for a pipeline in place of one that was lost, and a request for one while
	// a plan is loaded. Longer gives machines time to come back; clients wait that much longer to hear that none did.
	RecoveryTimeout time.Duration

	// Dial makes the link to a shard, which Run will bring to life; it calls fault when the shard reports that passes were
	// lost on their way from it to a peer.
	Dial func(member plan.Member, fault func(peer string, err error)) Link
	// Planned, if set, is told of every change of the plan's number and the coordinator's state, for the roster.
	Planned func(number uint64, state plan.State)

	Tracer trace.Tracer
	Log    *slog.Logger
}

// Validate checks that the configuration is whole.
func (c *Config) Validate() error {
	switch {
	case c.Name == "" || c.Model == nil || c.Tokenizer == nil || c.Dial == nil || c.Tracer == nil || c.Log == nil:
		return errors.New("coordinator with a part missing: name, model configuration, tokenizer, dial, tracer or log")
	case c.Shards < 0 || c.Shards > pass.MaxStages:
		return fmt.Errorf("coordinator of %d shards: ask for 1 to %d, or for 0: as many as come", c.Shards, pass.MaxStages)
	case c.MaxWaiting < 0:
		return fmt.Errorf("coordinator with %d requests waiting", c.MaxWaiting)
	case c.RecoveryTimeout < 0:
		return fmt.Errorf("coordinator that waits %v for recovery", c.RecoveryTimeout)
	case c.Tokenizer.Size() > c.Model.Vocab:
		return fmt.Errorf("the tokenizer has %d tokens, the model %d", c.Tokenizer.Size(), c.Model.Vocab)
	}
	return c.Shape.Validate()
}

// Coordinator drives generations through a cluster. Create it with New; it works while Run runs.
type Coordinator struct {
	cfg        Config
	places     *semaphore.Weighted // generations that may run: Shape.Parallel
	sequences  atomic.Uint64       // last sequence id given out
	passes     atomic.Uint64       // last pass number given out
	waiting    atomic.Int64
	active     atomic.Int64
	recovering order
	moving     *semaphore.Weighted // one generation at a time moves to another route, while the others go on
	idle       chan struct{}       // capacity 1: a generation has ended and none is running
	emptied    chan struct{}       // capacity 1: no generation is left in a route that shall be left
	over       chan struct{}       // closed when Run has ended

	mu      sync.Mutex
	routes  []*route      // whose pipelines run; those that lead nowhere any more among them
	changed chan struct{} // closed and replaced when the state changes
	status  Status        // without what changes with generations
}

// New makes a coordinator.
func New(cfg Config) (*Coordinator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Coordinator{
		cfg:     cfg,
		places:  semaphore.NewWeighted(int64(cfg.Shape.Parallel)),
		moving:  semaphore.NewWeighted(1),
		idle:    make(chan struct{}, 1),
		emptied: make(chan struct{}, 1),
		over:    make(chan struct{}),
		changed: make(chan struct{}),
		status: Status{
			Coordinator: cfg.Name, Version: cfg.Version, Model: cfg.Load.Model, SHA256: cfg.Load.SHA256,
			Context: cfg.Shape.Context, CacheType: cfg.Load.CacheType.String(), Layers: len(cfg.Shape.Layers),
			State: StateWaiting, Shards: []ShardStatus{},
		},
	}, nil
}

// Status is a snapshot of the cluster.
func (c *Coordinator) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Active, s.Waiting, s.Recovering = int(c.active.Load()), int(c.waiting.Load()), c.recovering.count()
	s.Pipelines = []PipelineStatus{}
	for _, r := range c.routes {
		switch {
		case !r.works():
			continue
		case r.left.Load():
			s.Moving += r.users
			continue
		}
		p := PipelineStatus{Generations: r.users}
		for _, stage := range r.stages {
			p.Shards = append(p.Shards, stage.Shard)
		}
		s.Pipelines = append(s.Pipelines, p)
	}
	return s
}

// Ready reports whether a plan is loaded and works.
func (c *Coordinator) Ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.working()) > 0
}

// Changed is closed when the status has changed.
func (c *Coordinator) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// publish lets others see a change.
func (c *Coordinator) publish(change func(*Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.status)
	close(c.changed)
	c.changed = make(chan struct{})
}

// Run plans, loads and watches until ctx ends. rosters delivers every change of the membership.
func (c *Coordinator) Run(ctx context.Context, rosters <-chan plan.Roster) error {
	defer close(c.over)
	g, ctx := errgroup.WithContext(ctx)
	o := &operator{
		c:        c,
		spawn:    g.Go,
		events:   make(chan event, 64),
		links:    make(map[string]*member),
		setbacks: make(map[string]*setback),
	}
	g.Go(func() error { return o.run(ctx, rosters) })
	return g.Wait()
}
