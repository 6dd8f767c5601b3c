package coordinator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/pass"
)

// loading is a deployment on its way. Its plan's shards load at once, each for itself.
type loading struct {
	*deployment
	loads   context.Context // of all Loads; they end with cancel
	cancel  context.CancelFunc
	asked   map[string]*pipeline.Port // shards that were asked to load
	waiting map[string]bool           // those that have not answered
	roomy   map[string]bool           // those that have given up what they held of other plans
	adopted bool                      // it serves already: one holder of each block is enough where nothing else does
	failed  string                    // the shard that err is of
	err     error                     // the first

	mu   sync.Mutex
	done map[string]pass.LoadProgress
}

// load has the shards of a plan hold their blocks, as far as they do not. What serves goes on meanwhile.
func (o *operator) load(ctx context.Context, d *deployment) {
	l := &loading{deployment: d, asked: make(map[string]*pipeline.Port), waiting: make(map[string]bool), roomy: make(map[string]bool),
		done: make(map[string]pass.LoadProgress)}
	for i := range d.plan.Stages() {
		for _, s := range d.plan.Holders(i) {
			if m := o.links[s.Shard]; m != nil && m.ready && !o.holds(d, s.Shard) {
				l.asked[s.Shard], l.waiting[s.Shard] = m.port, true
			}
		}
	}
	if len(l.asked) == 0 {
		return
	}
	o.coming = l
	l.loads, l.cancel = context.WithCancel(ctx)
	o.c.cfg.Log.Info("loading", "plan", d.plan.String())
	if !o.serves() {
		o.c.publish(func(s *Status) {
			s.State, s.Detail, s.Plan = StateLoading, "loading "+d.plan.String(), d.plan.ID.String()
			if o.started {
				s.State = StateRecovering
			}
		})
		o.announce(plan.Loading)
	}
	began := time.Now()
	o.watch(l.loads, slices.Collect(maps.Keys(l.asked)), func() (time.Time, time.Duration, bool) { return began, loadingAnswer, true }, nil)
	for shard := range l.asked {
		o.ask(ctx, l, shard)
	}
}

// ask has one shard load its block.
func (o *operator) ask(ctx context.Context, l *loading, shard string) {
	_, place, _ := l.plan.Stage(shard)
	stage, port, room := l.plan.Pipelines[0][place], l.asked[shard], l.roomy[shard]
	o.spawn(func() error {
		load := o.c.cfg.Load
		load.Plan, load.Layers, load.First, load.Last = l.plan.ID, stage.Layers, stage.First, stage.Last
		var err error
		if room {
			err = errors.Join(unloadOthers(l.loads, port, l.plan.ID))
		}
		if err == nil {
			err = port.Load(l.loads, load, func(p pass.LoadProgress) { o.c.report(l, shard, p) })
		}
		o.post(ctx, func(ctx context.Context, o *operator) { o.answered(ctx, l, shard, err) })
		return nil
	})
}

// answered sees what the end of a shard's Load means.
func (o *operator) answered(ctx context.Context, l *loading, shard string, err error) {
	delete(l.waiting, shard)
	switch {
	case err == nil:
		l.loaded[shard] = l.asked[shard]
	case errors.Is(err, pipeline.ErrMemory) && !l.roomy[shard] && (!o.serves() || o.c.active.Load() == 0):
		if o.current != l.deployment {
			o.withdraw(ctx)
		}
		l.roomy[shard], l.waiting[shard] = true, true
		o.ask(ctx, l, shard)
	case l.err == nil:
		l.failed, l.err = shard, fmt.Errorf("shard %s: %w", shard, err)
	}
	if !l.adopted && !o.serves() {
		if chains, _ := o.chains(l.deployment); len(chains) > 0 {
			l.adopted = true
			o.adopt(ctx, l.deployment)
		}
	}
	if l.err != nil && !l.adopted {
		l.cancel() // the others need not go on
	}
	if len(l.waiting) == 0 {
		o.loaded(ctx, l)
	}
}

// loaded puts a loaded plan to work, or sees what a failed load means.
func (o *operator) loaded(ctx context.Context, l *loading) {
	l.cancel()
	if l.err == nil {
		o.coming, o.tight = nil, false
		if o.current != l.deployment {
			o.adopt(ctx, l.deployment)
		} else {
			o.arrange(ctx)
			o.settle.Reset(settleTime)
		}
		return
	}
	asked := maps.Clone(l.asked)
	if o.current == l.deployment { // what could be loaded serves, or may
		maps.DeleteFunc(asked, func(shard string, p *pipeline.Port) bool { return l.loaded[shard] == p })
	}
	o.spawn(func() error {
		o.c.giveUp(ctx, l.plan.ID, asked)
		o.post(ctx, func(ctx context.Context, o *operator) { o.gaveUp(ctx, l) })
		return nil
	})
}

// gaveUp sees to another plan in place of one that could not be loaded.
func (o *operator) gaveUp(ctx context.Context, l *loading) {
	o.coming = nil
	o.c.cfg.Log.Error("a plan could not be loaded", "plan", l.plan.String(), "error", l.err)
	memory := errors.Is(l.err, pipeline.ErrMemory)
	o.tight = memory && !l.roomy[l.failed]
	switch m := o.links[l.failed]; {
	case m == nil || o.tight || errors.Is(l.err, pipeline.ErrBroken):
	case memory || errors.Is(l.err, pipeline.ErrModel):
		o.reject(m, l.err)
	default: // its disk may be full
		o.avoid(ctx, m)
	}
	if !o.serves() {
		o.wait(l.err.Error())
	}
	if errors.Is(l.err, pipeline.ErrBroken) {
		o.soon(breakTime)
	} else {
		o.settle.Reset(redialTime)
	}
}

// unloadTimeout bounds how long a plan that could not be loaded keeps the next one waiting.
const unloadTimeout = 10 * time.Second

// giveUp ends what is still being loaded of a plan, so that it does not turn up, and take memory, under the next one.
func (c *Coordinator) giveUp(ctx context.Context, id pass.PlanID, asked map[string]*pipeline.Port) {
	c.each(ctx, asked, "a plan was not unloaded", func(ctx context.Context, h pipeline.Hop) error { return h.Unload(ctx, id) })
}

// tidy frees what the shards hold of other plans, and says whether all of this coordinator's are gone: a shard keeps those of
// one that is connected for as long as it is.
func (c *Coordinator) tidy(ctx context.Context, hops map[string]*pipeline.Port, current pass.PlanID) bool {
	return c.each(ctx, hops, "plans before were not unloaded", func(ctx context.Context, h pipeline.Hop) error {
		err, others := unloadOthers(ctx, h, current)
		if others != nil {
			c.cfg.Log.Warn("plans of other coordinators were not unloaded", "shard", h.Shard(), "error", others)
		}
		return err
	})
}

// each asks shards for something, all at once. It returns false if one that lives failed.
func (c *Coordinator) each(ctx context.Context, hops map[string]*pipeline.Port, failure string, do func(context.Context, pipeline.Hop) error) bool {
	limited, cancel := context.WithTimeout(ctx, unloadTimeout)
	defer cancel()
	var g sync.WaitGroup
	var failed atomic.Bool
	for _, h := range hops {
		g.Go(func() {
			if err := do(limited, h); err != nil && !errors.Is(err, pipeline.ErrBroken) && ctx.Err() == nil {
				failed.Store(true)
				c.cfg.Log.Warn(failure, "shard", h.Shard(), "error", err)
			}
		})
	}
	g.Wait()
	return !failed.Load()
}

// unloadOthers frees what a shard holds of plans other than one, and those of this coordinator that came after it. What could
// not be freed of other coordinators' plans is an error apart.
func unloadOthers(ctx context.Context, h pipeline.Hop, plan pass.PlanID) (own, others error) {
	d, err := h.Describe(ctx)
	if err != nil {
		return fmt.Errorf("describe: %w", err), nil
	}
	for _, b := range d.Blocks {
		if b.Plan.Number == 0 || b.Plan.Leader == plan.Leader && b.Plan.Number >= plan.Number {
			continue // a trial, here and gone, or what is to stay
		}
		err := h.Unload(ctx, b.Plan)
		switch {
		case err == nil:
		case b.Plan.Leader == plan.Leader:
			own = errors.Join(own, fmt.Errorf("unload plan %v: %w", b.Plan, err))
		default:
			others = errors.Join(others, fmt.Errorf("unload plan %v: %w", b.Plan, err))
		}
	}
	return own, others
}

// report publishes how far loading has come, unless there is a plan that serves meanwhile.
func (c *Coordinator) report(l *loading, shard string, progress pass.LoadProgress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[shard] = progress
	if c.Ready() {
		return
	}
	var parts []string
	for i := range l.plan.Stages() {
		for _, s := range l.plan.Holders(i) {
			if _, asked := l.asked[s.Shard]; asked {
				done := l.done[s.Shard]
				parts = append(parts, fmt.Sprintf("%s %d %%", s.Shard, done.Done*100/max(done.Total, 1)))
			}
		}
	}
	c.publish(func(st *Status) { st.Detail = "loading: " + strings.Join(parts, ", ") })
}
