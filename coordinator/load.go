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

// load has every stage hold its block and no shard anything else, and builds the pipeline. It names the shard that
// failed, if one did.
func (c *Coordinator) load(ctx context.Context, p *plan.Plan, hops map[string]pipeline.Hop) (_ *pipeline.Pipeline, failed string, err error) {
	stages := p.Pipelines[0]
	chain := make([]pipeline.Hop, len(stages))
	for i, s := range stages {
		if chain[i] = hops[s.Shard]; chain[i] == nil {
			return nil, s.Shard, fmt.Errorf("shard %s is gone", s.Shard)
		}
	}
	held, failed, err := tidy(ctx, hops, p)
	if err != nil {
		return nil, failed, err
	}
	var mu sync.Mutex // of failed, err and done
	g, gctx := errgroup.WithContext(ctx)
	done := make([]pass.LoadProgress, len(stages))
	for i, s := range stages {
		if held[s.Shard] {
			continue
		}
		g.Go(func() error {
			l := c.cfg.Load
			l.Plan, l.Layers, l.First, l.Last = p.ID, s.Layers, s.First, s.Last
			e := chain[i].Load(gctx, l, func(progress pass.LoadProgress) {
				mu.Lock()
				defer mu.Unlock()
				done[i] = progress
				c.report(stages, done)
			})
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
		Hops:        chain,
		Hidden:      c.cfg.Model.Hidden,
		Passes:      &c.passes,
	})
	return pl, "", err
}

// unloadTimeout bounds how long a plan that could not be loaded keeps the next one waiting.
const unloadTimeout = 10 * time.Second

// giveUp ends what is still being loaded of a plan, so that it does not turn up, and take memory, under the next one.
func (c *Coordinator) giveUp(ctx context.Context, p *plan.Plan, chain []pipeline.Hop) {
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

// tidy frees what the shards hold of other plans, and says which hold their block of this one already.
func tidy(ctx context.Context, hops map[string]pipeline.Hop, p *plan.Plan) (held map[string]bool, failed string, err error) {
	held = make(map[string]bool)
	for name, h := range hops {
		d, err := h.Describe(ctx)
		if err != nil {
			return nil, name, fmt.Errorf("describe shard %s: %w", name, err)
		}
		for _, b := range d.Blocks {
			if b.Plan.Number == 0 {
				continue // a trial, here and gone
			}
			if _, place, ok := p.Stage(name); ok && b.Plan == p.ID && b.Layers == p.Pipelines[0][place].Layers {
				held[name] = true
				continue
			}
			if err := h.Unload(ctx, b.Plan); err != nil {
				return nil, name, fmt.Errorf("unload plan %v from shard %s: %w", b.Plan, name, err)
			}
		}
	}
	return held, "", nil
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
