// Package coordinator is the life of a generation: it plans who holds what, has it loaded, admits requests, and drives
// each one's tokens through the pipeline. It knows no sockets and no protobuf: shards are reached over Links that
// services/rpc provides, and membership arrives as rosters from services/cluster. services/gateway is its caller.
//
// One loop, Run, owns members, links and the plan. Generations run in their callers' goroutines and see only the
// current deployment. A lost shard breaks the deployment, and a new plan over the shards that are left is loaded; the
// generations wait for it, begin new epochs there, oldest first, and go on where they were. A shard that joins a working
// deployment is put to use once no generation runs.
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
	idle       chan struct{} // capacity 1: a generation has ended and none is running
	moved      chan struct{} // capacity 1: no generation is left in a deployment
	over       chan struct{} // closed when Run has ended

	mu      sync.Mutex
	current *deployment   // nil while nothing is loaded
	changed chan struct{} // closed and replaced when the state changes
	status  Status        // without Active and Waiting
}

// deployment is a plan with its pipeline, loaded and running.
type deployment struct {
	plan     *plan.Plan
	pipeline *pipeline.Pipeline
	users    atomic.Int64    // generations that have begun in it, and nowhere else since
	moved    chan<- struct{} // capacity 1: the last of its users has left
	ended    chan struct{}   // closed when the pipeline's Run has ended
}

// blocks are the layers of its stages.
func (d *deployment) blocks() []model.Layers {
	var blocks []model.Layers
	for _, s := range d.plan.Pipelines[0] {
		blocks = append(blocks, s.Layers)
	}
	return blocks
}

// leave says that a generation needs nothing of a deployment any more.
func (d *deployment) leave() {
	if d.users.Add(-1) == 0 {
		select {
		case d.moved <- struct{}{}:
		default:
		}
	}
}

// New makes a coordinator.
func New(cfg Config) (*Coordinator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Coordinator{
		cfg:     cfg,
		places:  semaphore.NewWeighted(int64(cfg.Shape.Parallel)),
		idle:    make(chan struct{}, 1),
		moved:   make(chan struct{}, 1),
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
	return s
}

// Ready reports whether a plan is loaded.
func (c *Coordinator) Ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current != nil
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

// deploy makes a deployment current, or none.
func (c *Coordinator) deploy(d *deployment) {
	c.mu.Lock()
	c.current = d
	c.mu.Unlock()
}

// deployed returns the current deployment. Where there is none it waits for it, until a time, unless shards are still
// waited for that were never there: only who starts the cluster can say when they will be.
func (c *Coordinator) deployed(ctx context.Context, until time.Time) (*deployment, error) {
	limit := time.NewTimer(time.Until(until))
	defer limit.Stop()
	for {
		c.mu.Lock()
		d, state, detail, changed := c.current, c.status.State, c.status.Detail, c.changed
		c.mu.Unlock()
		if d != nil && d.pipeline.Err() == nil {
			return d, nil
		}
		if state == StateWaiting {
			return nil, fmt.Errorf("%w: %s", ErrNotReady, detail)
		}
		select {
		case <-changed:
		case <-limit.C:
			return nil, fmt.Errorf("%w: it is %s: %s", ErrNotReady, state, detail)
		case <-c.over:
			return nil, fmt.Errorf("%w: the coordinator has stopped", ErrNotReady)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Run plans, loads and watches until ctx ends. rosters delivers every change of the membership.
func (c *Coordinator) Run(ctx context.Context, rosters <-chan plan.Roster) error {
	defer close(c.over)
	g, ctx := errgroup.WithContext(ctx)
	o := &operator{
		c:      c,
		spawn:  g.Go,
		events: make(chan event, 64),
		links:  make(map[string]*member),
	}
	g.Go(func() error { return o.run(ctx, rosters) })
	return g.Wait()
}
