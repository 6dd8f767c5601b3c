package shard

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/pass"
)

// MaxRows is how many positions a block computes at once, MaxHeadRows of how many it computes the logits; what is longer
// is cut into such pieces, which changes no bit. Planners reserve memory for so many.
const (
	MaxRows     = 128
	MaxHeadRows = 16
)

// held is one loaded block with everything that its passes need.
type held struct {
	load      pass.Load
	holding   *holding
	cfg       *model.Config
	block     *model.Block
	sampler   *sample.Sampler // last stage only
	logits    []float32       // (vocab), last stage only
	entries   []model.Entry   // of the pass in hand
	running   []*sequence     // theirs
	sequences int             // that are cached here
}

// loading is a block that is not there yet.
type loading struct {
	cancel context.CancelFunc
	ended  chan struct{} // closed when it is loaded or given up
}

func (h *held) resident() int64 { return h.block.Resident() + h.holding.pool.Limit() }

// close frees a block, which the loop no longer has, but for what other plans' blocks share.
func (s *Shard) close(h *held) error {
	h.block.Close()
	return s.drop(h.holding, h.load)
}

// Load makes the shard hold a block. It reads and repacks, in the caller's goroutine and while passes of other plans go on,
// what no other plan's block of the same model has already; progress is called as it advances, first when Unload can end it. A block that is held already, as the same Load asked for it, is
// not loaded again.
func (s *Shard) Load(ctx context.Context, load pass.Load, progress func(pass.LoadProgress)) error {
	if err := s.load(ctx, load, progress); err != nil {
		return fmt.Errorf("load layers %v of %s: %w", load.Layers, load.Model, err)
	}
	return nil
}

func (s *Shard) load(ctx context.Context, load pass.Load, progress func(pass.LoadProgress)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &loading{cancel: cancel, ended: make(chan struct{})}
	s.mu.Lock()
	busy := s.loading[load.Plan] != nil
	if !busy {
		s.loading[load.Plan] = l
	}
	s.mu.Unlock()
	if busy {
		return fmt.Errorf("a block of plan %v is being loaded already: unload it first", load.Plan)
	}
	defer func() {
		s.mu.Lock()
		delete(s.loading, load.Plan)
		s.mu.Unlock()
		close(l.ended)
	}()
	progress(pass.LoadProgress{})
	var old pass.Load
	there := false
	if err := s.do(ctx, func() {
		if h := s.blocks[load.Plan]; h != nil {
			old, there = h.load, true
		}
	}); err != nil {
		return err
	}
	if old.Root = load.Root; there && old != load { // the root only helps to get the file's bytes, which are the same
		return fmt.Errorf("layers %v are loaded already for plan %v: unload them first", old.Layers, load.Plan)
	}
	if there {
		return nil
	}
	h, err := s.prepare(ctx, load, progress)
	if err != nil {
		return err
	}
	if err := s.do(ctx, func() { s.blocks[load.Plan] = h }); err != nil {
		s.close(h)
		return err
	}
	s.keep(ctx, h.holding)
	return nil
}

// prepare loads what is missing. One block is loaded at a time, so that the next one can share it.
func (s *Shard) prepare(ctx context.Context, load pass.Load, progress func(pass.LoadProgress)) (_ *held, err error) {
	select {
	case s.preparing <- struct{}{}:
		defer func() { <-s.preparing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	t, err := s.hold(ctx, load)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.drop(t, load) // the error that led here says more
		}
	}()
	fetched, err := s.fetch(ctx, t, load, progress)
	if err != nil {
		return nil, err
	}
	var lent []*model.Lent
	if err := s.do(ctx, func() {
		for _, h := range s.blocks {
			if h.holding == t {
				lent = append(lent, h.block.Lend())
			}
		}
	}); err != nil {
		return nil, err
	}
	defer func() {
		for _, l := range lent {
			l.Close()
		}
	}()
	var before atomic.Int64
	block, err := model.LoadBlock(ctx, t.file, t.cfg, load.Layers, model.Options{
		Embedding: load.First,
		Head:      load.Last,
		Kernels:   s.cfg.Kernels,
		Threads:   s.cfg.Threads,
		MaxRows:   MaxRows,
		Lent:      lent,
		Progress: func(done, total int64) {
			s.steps.Add(uint64(max(0, done-before.Swap(done))))
			progress(pass.LoadProgress{Done: fetched + done, Total: fetched + total})
		},
	})
	if err != nil {
		return nil, err
	}
	h := &held{load: load, holding: t, cfg: t.cfg, block: block}
	if load.Last {
		h.sampler = sample.New(s.cfg.Kernels, t.cfg.Vocab)
		h.logits = make([]float32, t.cfg.Vocab)
	}
	return h, nil
}

// checkLoad bounds what a coordinator asks for.
func checkLoad(load pass.Load, cfg *model.Config) error {
	l := load.Layers
	switch {
	case l.First < 0 || l.Last < l.First || int(l.Last) > cfg.Layers:
		return fmt.Errorf("layers [%d, %d) of a model of %d", l.First, l.Last, cfg.Layers)
	case load.First && l.First != 0 || load.Last && int(l.Last) != cfg.Layers:
		return fmt.Errorf("layers [%d, %d) cannot be at that end of a model of %d", l.First, l.Last, cfg.Layers)
	case load.Context < 1 || load.Context > cfg.Context:
		return fmt.Errorf("a context of %d: the model was made for at most %d", load.Context, cfg.Context)
	case load.Parallel < 1 || load.Parallel > 4096:
		return fmt.Errorf("%d sequences at once: 1 to 4096 are possible", load.Parallel)
	}
	return nil
}

// Unload frees a plan's block, or ends its loading. Sequences that still run in it are freed with it.
func (s *Shard) Unload(ctx context.Context, plan pass.PlanID) error {
	s.mu.Lock()
	l := s.loading[plan]
	s.mu.Unlock()
	if l != nil {
		l.cancel()
		select {
		case <-l.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var err error
	var h *held
	if e := s.do(ctx, func() {
		h = s.blocks[plan]
		if h == nil {
			return
		}
		for key, q := range s.sequences {
			if q.plan == plan {
				s.free(key)
			}
		}
		delete(s.blocks, plan)
		err = s.close(h)
	}); e != nil {
		return e
	}
	if h != nil {
		s.keep(ctx, h.holding)
	}
	return err
}

// closeBlocks frees everything.
func (s *Shard) closeBlocks() {
	for key := range s.sequences {
		s.free(key)
	}
	for plan, h := range s.blocks {
		if err := s.close(h); err != nil {
			s.cfg.Log.Warn("close a block", "plan", plan, "error", err)
		}
		delete(s.blocks, plan)
	}
}
