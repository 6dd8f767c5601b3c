package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/pass"
)

// load has every stage hold its block and builds the pipeline. It names the shard that failed, if one did. What the shards
// hold of other plans stays, unless room is to be made: their layers may be those of this one.
func (c *Coordinator) load(ctx context.Context, p *plan.Plan, hops map[string]*pipeline.Port, makeRoom bool) (_ *pipeline.Pipeline, failed string, err error) {
	stages := p.Pipelines[0]
	chain := make([]*pipeline.Port, len(stages))
	for i, s := range stages {
		if chain[i] = hops[s.Shard]; chain[i] == nil {
			return nil, s.Shard, fmt.Errorf("shard %s is gone: %w", s.Shard, pipeline.ErrBroken)
		}
	}
	var mu sync.Mutex // of failed, err and done
	g, gctx := errgroup.WithContext(ctx)
	done := make([]pass.LoadProgress, len(stages))
	for i, s := range stages {
		g.Go(func() error {
			l := c.cfg.Load
			l.Plan, l.Layers, l.First, l.Last = p.ID, s.Layers, s.First, s.Last
			var e error
			if makeRoom {
				e = unloadOthers(gctx, chain[i], p.ID)
			}
			if e == nil {
				e = chain[i].Load(gctx, l, func(progress pass.LoadProgress) {
					mu.Lock()
					defer mu.Unlock()
					done[i] = progress
					c.report(stages, done)
				})
			}
			mu.Lock()
			defer mu.Unlock()
			if e != nil && err == nil {
				failed, err = s.Shard, fmt.Errorf("shard %s: %w", s.Shard, e)
			}
			return err
		})
	}
	if g.Wait() != nil {
		c.giveUp(ctx, p, chain)
		return nil, failed, err
	}
	pl, err := pipeline.New(pipeline.Config{
		Coordinator: c.cfg.Name,
		Plan:        p.ID,
		Stages:      p.Route(0),
		Ports:       chain,
		Hidden:      c.cfg.Model.Hidden,
		Passes:      &c.passes,
	})
	return pl, "", err
}

// unloadTimeout bounds how long a plan that could not be loaded keeps the next one waiting.
const unloadTimeout = 10 * time.Second

// giveUp ends what is still being loaded of a plan, so that it does not turn up, and take memory, under the next one.
func (c *Coordinator) giveUp(ctx context.Context, p *plan.Plan, chain []*pipeline.Port) {
	ctx, cancel := context.WithTimeout(ctx, unloadTimeout)
	defer cancel()
	var g errgroup.Group
	for _, h := range chain {
		g.Go(func() error {
			if err := h.Unload(ctx, p.ID); err != nil && !errors.Is(err, pipeline.ErrBroken) && ctx.Err() == nil {
				c.cfg.Log.Warn("a plan was not unloaded", "plan", p.ID, "shard", h.Shard(), "error", err)
			}
			return nil
		})
	}
	g.Wait()
}

// tidy frees what the shards hold of other plans. What fails is tried again with the next plan.
func (c *Coordinator) tidy(ctx context.Context, hops map[string]*pipeline.Port, current pass.PlanID) {
	ctx, cancel := context.WithTimeout(ctx, unloadTimeout)
	defer cancel()
	var g errgroup.Group
	for _, h := range hops {
		g.Go(func() error {
			if err := unloadOthers(ctx, h, current); err != nil && !errors.Is(err, pipeline.ErrBroken) && ctx.Err() == nil {
				c.cfg.Log.Warn("plans before were not unloaded", "shard", h.Shard(), "error", err)
			}
			return nil
		})
	}
	g.Wait()
}

// unloadOthers frees what a shard holds of plans other than one, and those of this coordinator that came after it.
func unloadOthers(ctx context.Context, h pipeline.Hop, plan pass.PlanID) error {
	d, err := h.Describe(ctx)
	if err != nil {
		return fmt.Errorf("describe: %w", err)
	}
	var failed error
	for _, b := range d.Blocks {
		if b.Plan.Number == 0 || b.Plan.Leader == plan.Leader && b.Plan.Number >= plan.Number {
			continue // a trial, here and gone, or what is to stay
		}
		if err := h.Unload(ctx, b.Plan); err != nil {
			failed = errors.Join(failed, fmt.Errorf("unload plan %v: %w", b.Plan, err)) // another coordinator's, perhaps
		}
	}
	return failed
}

// report publishes how far loading has come.
func (c *Coordinator) report(stages []plan.Stage, done []pass.LoadProgress) {
	parts := make([]string, len(stages))
	for i, s := range stages {
		percent := int64(0)
		if done[i].Total > 0 {
			percent = done[i].Done * 100 / done[i].Total
		}
		parts[i] = fmt.Sprintf("%s %d %%", s.Shard, percent)
	}
	c.publish(func(st *Status) { st.Detail = "loading: " + strings.Join(parts, ", ") })
}
