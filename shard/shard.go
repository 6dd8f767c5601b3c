// Package shard is the worker: it holds blocks of transformer layers and the caches of the sequences that run through
// them, and computes passes one after the other.
//
// services/rpc puts it on the network, and is its only caller. One loop, Run, owns blocks and sequences; commands and
// passes reach it as jobs, commands first, because a Begin must not wait for a queue of prompts. A pass is computed,
// then handed to the Outlet: to the next stage, or, from the last one, to the coordinator as a Result.
//
// Invariant: an entry runs only if its epoch is the sequence's own, its turn the next, and its first position at or
// below the cached length; so a sequence's cache is always what its tokens say. Its whole pages stay, under the name of
// these tokens, for later sequences of any coordinator, plan and epoch, as long as no running one needs their room. An
// entry that may not run is refused and travels on, empty, with its reason; the others of its pass go on. A pass beyond the
// credit granted is an error of the sender: Submit returns ErrBusy and the queue stays bounded. A pass's credit is free
// before anyone can see its result.
package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/pass"
)

// Errors that callers branch on.
var (
	// ErrBusy: a coordinator sent more than it was granted.
	ErrBusy = errors.New("more passes than were granted")
	// ErrModel: the shard has no file of the model asked for, or another one.
	ErrModel = errors.New("the model file differs")
	// ErrNoFile: the shard has no file of the model, and the Load does not say of what chunks it consists.
	ErrNoFile = errors.New("there is no file of the model here")
	// ErrMemory: the block does not fit into the memory on offer.
	ErrMemory = errors.New("not enough memory")
	// ErrStopped: the shard's loop has ended.
	ErrStopped = errors.New("the shard has stopped")
)

// Outlet takes what the shard has computed. Its methods do not block, and are called from the shard's loop alone.
type Outlet interface {
	// Forward hands a pass to the stage that its route begins with. The rows are the Outlet's from then on.
	Forward(p *pass.Pass)
	// Return hands a result to the coordinator.
	Return(coordinator string, r *pass.Result)
}

// Config says what a shard is made of.
type Config struct {
	Name    string
	Kernels *kernel.Set
	Threads int   // that compute, the loop's own included
	Memory  int64 // bytes that blocks, caches and scratch may take together; 0: no limit

	// Room is how many bytes this process can come to hold now, those included that it holds: other programs may have taken since what was on
	// offer at first. Nil, or an error, which means that the system does not say: it is not asked for.
	Room func() (int64, error)

	// Passes and Bytes are granted to every coordinator. More hide more of the network's latency; every granted byte may
	// have to be buffered.
	Grant pass.Grant

	// Open finds the model file that a Load names; it must check the hash. Errors about the file wrap ErrModel.
	Open func(ctx context.Context, load pass.Load) (*gguf.File, error)

	// Fetch, if set, brings the data of tensors into the file that Open gave for a Load of this model: of one that comes from
	// others, only the header need be there before. It reports how many of the bytes that were missing have come.
	Fetch func(ctx context.Context, load pass.Load, tensors []*gguf.Tensor, progress func(done, total int64)) error

	// Keep, if set, is told of which tensors the blocks of a model consist now: of a file that comes from others the rest may
	// be given up.
	Keep func(load pass.Load, tensors []*gguf.Tensor)

	Outlet Outlet
	Rows   *pass.RowPool
	Tracer trace.Tracer
	Log    *slog.Logger
}

// Validate checks that nothing is missing.
func (c *Config) Validate() error {
	switch {
	case c.Name == "":
		return errors.New("shard without a name")
	case c.Kernels == nil || c.Open == nil || c.Outlet == nil || c.Rows == nil || c.Tracer == nil || c.Log == nil:
		return errors.New("shard with a part missing: kernels, open, outlet, rows, tracer or log")
	case c.Threads < 1 || c.Threads > 1024:
		return fmt.Errorf("shard of %d threads: give it 1 to 1024", c.Threads)
	case c.Grant.Passes < 1 || c.Grant.Bytes < 1:
		return fmt.Errorf("shard that grants %d passes and %d bytes", c.Grant.Passes, c.Grant.Bytes)
	}
	return nil
}

// maxCoordinators bounds the queue together with the grant. Coordinators are few: each one is a front door.
const maxCoordinators = 16

// Shard is one worker. Create it with New; it works while Run runs.
type Shard struct {
	cfg      Config
	commands chan func()
	inbox    chan job
	stopped  chan struct{} // closed when Run has returned

	steps  atomic.Uint64 // layers computed and bytes loaded; only growth has a meaning
	passes atomic.Uint64

	mu       sync.Mutex
	queued   map[string]pass.Grant // by coordinator: passes and bytes that wait
	loading  map[pass.PlanID]*loading
	reserved int64 // bytes of all blocks, loaded or being loaded
	holdings map[kind]*holding

	preparing chan struct{} // capacity 1: a block is being loaded

	// The loop's own.
	blocks    map[pass.PlanID]*held
	sequences map[sequenceKey]*sequence
}

type job struct {
	pass     *pass.Pass
	received time.Time
	bytes    int64 // of rows, while it was queued
}

// New makes a shard that holds nothing yet.
func New(cfg Config) (*Shard, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Shard{
		cfg:       cfg,
		commands:  make(chan func()),
		inbox:     make(chan job, maxCoordinators*cfg.Grant.Passes),
		stopped:   make(chan struct{}),
		queued:    make(map[string]pass.Grant),
		loading:   make(map[pass.PlanID]*loading),
		holdings:  make(map[kind]*holding),
		preparing: make(chan struct{}, 1),
		blocks:    make(map[pass.PlanID]*held),
		sequences: make(map[sequenceKey]*sequence),
	}, nil
}

// Run computes until ctx ends, and frees everything then.
func (s *Shard) Run(ctx context.Context) error {
	defer close(s.stopped)
	defer s.closeBlocks()
	for {
		select { // commands first
		case command := <-s.commands:
			command()
			continue
		default:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case command := <-s.commands:
			command()
		case j := <-s.inbox:
			s.settle(j)
			s.run(ctx, j)
		}
	}
}

// do has the loop run a command and waits for it.
func (s *Shard) do(ctx context.Context, command func()) error {
	done := make(chan struct{})
	select {
	case s.commands <- func() { command(); close(done) }:
	case <-s.stopped:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	<-done // the loop never leaves a command half done
	return nil
}

// Submit queues a pass whose route begins with this shard. It does not block. The pass is the shard's from then on.
func (s *Shard) Submit(p *pass.Pass) error {
	bytes := int64(len(p.Rows)) * 4
	s.mu.Lock()
	q, known := s.queued[p.Coordinator]
	full := q.Passes >= s.cfg.Grant.Passes || q.Bytes+bytes > s.cfg.Grant.Bytes || !known && len(s.queued) >= maxCoordinators
	if !full {
		s.queued[p.Coordinator] = pass.Grant{Passes: q.Passes + 1, Bytes: q.Bytes + bytes}
	}
	s.mu.Unlock()
	if full {
		return fmt.Errorf("pass %d of coordinator %s: %w: %d passes and %d bytes are queued, %d and %d were granted",
			p.Number, p.Coordinator, ErrBusy, q.Passes, q.Bytes, s.cfg.Grant.Passes, s.cfg.Grant.Bytes)
	}
	s.inbox <- job{pass: p, received: time.Now(), bytes: bytes} // has room for every grant
	return nil
}

// settle takes a pass that has left the queue off its coordinator's account. It must do so before the pass is handed on: the
// coordinator may use the credit as soon as it has the result.
func (s *Shard) settle(j job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queued[j.pass.Coordinator]
	if q.Passes--; q.Passes == 0 {
		delete(s.queued, j.pass.Coordinator)
		return
	}
	q.Bytes -= j.bytes
	s.queued[j.pass.Coordinator] = q
}

// Progress answers a probe from outside the loop: a counter that grows while the shard makes progress, and how many
// passes wait.
func (s *Shard) Progress() (steps uint64, queued int) {
	return s.steps.Load(), len(s.inbox)
}

// Grant is the credit that every coordinator has.
func (s *Shard) Grant() pass.Grant { return s.cfg.Grant }

// Held describes one block that the shard holds.
type Held struct {
	Load      pass.Load
	Resident  int64 // bytes of weights, caches and scratch
	Sequences int   // cached in it
	Cached    int64 // bytes of pages that they and those of other plans' blocks of the model hold
}

// Blocks lists what the shard holds, and how many passes it has computed.
func (s *Shard) Blocks(ctx context.Context) (blocks []Held, passes uint64, err error) {
	err = s.do(ctx, func() {
		for _, h := range s.blocks {
			blocks = append(blocks, Held{Load: h.load, Resident: h.resident(), Sequences: h.sequences, Cached: h.holding.pool.Used() + h.holding.logs.Used()})
		}
	})
	return blocks, s.passes.Load(), err
}
