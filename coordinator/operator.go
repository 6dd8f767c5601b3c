package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/coordinator/plan"
)

// States of a cluster.
const (
	StateWaiting    = "waiting" // for shards that were never there, or for more memory
	StateLoading    = "loading"
	StateReady      = "ready"
	StateRecovering = "recovering" // a plan was lost; another is made, or shards are waited for to make one
)

// operator is the state of the coordinator's loop; nothing else touches it.
type operator struct {
	c      *Coordinator
	spawn  func(func() error)
	events chan event

	roster  plan.Roster
	links   map[string]*member // by shard name
	loading bool               // a deployment is on its way; its end will come as an event
	current *deployment
	retired []*deployment // whose plans may still be loaded: generations have not left them all
	plan    *plan.Plan    // that is loaded, or being loaded
	base    *plan.Plan    // the last one that was loaded: what the shards hold
	number  uint64        // of the last plan made, also of one that could not be loaded
	started bool          // a plan was loaded once: from now on fewer shards than asked for will do
	breaks  int           // pipelines that broke soon after they came, in a row
	settle  *time.Timer

	reckoned reckoned
}

// event is what happened outside the loop, as something for the loop to do.
type event func(ctx context.Context, o *operator)

// settleTime is how long the loop waits for more shards after one has come, before it plans.
const settleTime = 300 * time.Millisecond

// A new plan is made so soon after a pipeline has broken: the links are about to tell what happened. Where pipelines break as
// soon as they are made, because two shards cannot reach each other, the time doubles.
const (
	breakTime    = 20 * time.Millisecond
	maxBreakTime = 2 * time.Second
	soonBroken   = 5 * time.Second
)

func (o *operator) run(ctx context.Context, rosters <-chan plan.Roster) error {
	o.settle = time.NewTimer(settleTime)
	defer o.settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case roster, ok := <-rosters:
			if !ok {
				rosters = nil
				continue
			}
			o.meet(ctx, roster)
		case e := <-o.events:
			e(ctx, o)
		case <-o.c.idle:
			if o.current != nil && o.current.pipeline.Err() == nil { // without a plan that works, waiting has another reason
				o.settle.Reset(0)
			}
		case <-o.c.moved:
			o.tidy(ctx)
		case <-o.settle.C:
			o.replan(ctx)
		}
		o.publish()
	}
}

// post hands an event to the loop.
func (o *operator) post(ctx context.Context, e event) {
	select {
	case o.events <- e:
	case <-ctx.Done():
	}
}

// soon has a plan made after some time at least, and not while links that worked a moment ago are being dialled anew.
func (o *operator) soon(least time.Duration) {
	for _, m := range o.links {
		if !m.ready && m.unfit == nil {
			least = max(least, time.Until(m.hope))
		}
	}
	o.settle.Reset(least)
}

// replan makes a plan of what there is, if that is better than what runs, and starts to load it.
func (o *operator) replan(ctx context.Context) {
	if o.loading {
		return // its end replans
	}
	whole := o.current != nil && o.current.pipeline.Err() == nil
	if whole && o.c.active.Load() > 0 {
		return // the last of them says idle
	}
	if !whole && o.dying() {
		return // and its end will say when to plan
	}
	roster := o.usable()
	base := o.base
	if base == nil {
		base = o.found()
	}
	// A coordinator that finds all layers loaded is the next life of one that had the shards it asked for.
	if asked := max(1, o.c.cfg.Shards); !o.started && len(roster) < asked && (base == nil || !base.Whole()) {
		o.wait(fmt.Sprintf("%d of %d shards are here", len(roster), asked))
		return
	}
	next, err := plan.Solve(roster, o.c.cfg.Shape, base, plan.Options{Leader: o.c.cfg.Name, Keep: !whole})
	if err != nil {
		if !whole {
			o.retire()
			o.plan = nil
			o.wait(err.Error())
		}
		return
	}
	if whole && next.ID == o.current.plan.ID {
		return
	}
	if o.base == nil || next.ID != o.base.ID { // a name is never used twice: shards may still be loading for its former bearer
		next.ID.Number = max(next.ID.Number, o.number+1)
		o.number = next.ID.Number
	}
	o.load(ctx, next, false)
}

// load has the shards load a plan; the deployment that there is, if any, serves meanwhile, unless the shards' memory has no
// room for both.
func (o *operator) load(ctx context.Context, next *plan.Plan, makeRoom bool) {
	if makeRoom || o.current != nil && o.current.pipeline.Err() != nil {
		o.retire()
	}
	o.plan, o.loading = next, true
	o.c.cfg.Log.Info("loading", "plan", next.String())
	if o.current == nil {
		o.c.publish(func(s *Status) {
			s.State, s.Detail, s.Plan = StateLoading, "loading "+next.String(), next.ID.String()
			if o.started {
				s.State = StateRecovering
			}
		})
		o.announce(plan.Loading)
	}
	hops := o.hops()
	end := make(chan struct{})
	began := time.Now()
	o.watch(ctx, next, end, func() (time.Time, time.Duration, bool) { return began, loadingAnswer, true }, nil)
	o.spawn(func() error {
		p, failed, err := o.c.load(ctx, next, hops, makeRoom)
		close(end)
		o.post(ctx, func(ctx context.Context, o *operator) { o.loaded(ctx, next, p, failed, err, makeRoom) })
		return nil
	})
}

// hops are the links to all shards that can be reached.
func (o *operator) hops() map[string]*pipeline.Port {
	hops := make(map[string]*pipeline.Port)
	for name, m := range o.links {
		if m.ready {
			hops[name] = m.port
		}
	}
	return hops
}

// retire takes the deployment out of service.
func (o *operator) retire() {
	if o.current == nil {
		return
	}
	o.c.deploy(nil)
	o.current.pipeline.Break(errors.New("a new plan replaces it"))
	o.retired = append(o.retired, o.current)
	o.current = nil
}

// wait says what the cluster is waiting for.
func (o *operator) wait(why string) {
	if o.c.Status().Detail != why {
		o.c.cfg.Log.Info("waiting", "for", why)
	}
	o.c.publish(func(s *Status) {
		s.State, s.Detail, s.Plan = StateWaiting, why, ""
		if o.started {
			s.State = StateRecovering
		}
	})
	o.announce(plan.Joining)
}

func (o *operator) announce(state plan.State) {
	if o.c.cfg.Planned == nil {
		return
	}
	number := uint64(0)
	if o.plan != nil {
		number = o.plan.ID.Number
	}
	o.c.cfg.Planned(number, state)
}

// loaded puts a loaded plan to work, or sees what a failed load means.
func (o *operator) loaded(ctx context.Context, p *plan.Plan, pl *pipeline.Pipeline, failed string, err error, madeRoom bool) {
	if ctx.Err() != nil {
		return
	}
	if errors.Is(err, pipeline.ErrMemory) && !madeRoom {
		o.load(ctx, p, true)
		return
	}
	if err != nil {
		o.loading, o.plan = false, nil
		if o.current != nil {
			o.plan = o.current.plan
		}
		o.c.cfg.Log.Error("a plan could not be loaded", "plan", p.String(), "error", err)
		if m := o.links[failed]; m != nil && (errors.Is(err, pipeline.ErrModel) || errors.Is(err, pipeline.ErrMemory)) {
			o.reject(m, err)
		}
		if o.current == nil {
			o.wait(err.Error())
		}
		if errors.Is(err, pipeline.ErrBroken) {
			o.soon(breakTime)
		} else {
			o.settle.Reset(redialTime)
		}
		return
	}
	o.retire()
	o.adopt(ctx, p, pl)
}

// adopt puts a pipeline to work.
func (o *operator) adopt(ctx context.Context, p *plan.Plan, pl *pipeline.Pipeline) {
	d := &deployment{plan: p, pipeline: pl, moved: o.c.moved, ended: make(chan struct{})}
	o.loading, o.current, o.base, o.started = false, d, p, true
	since := time.Now()
	o.spawn(func() error {
		err := pl.Run(ctx)
		close(d.ended)
		if ctx.Err() != nil {
			return nil
		}
		o.post(ctx, func(_ context.Context, o *operator) {
			if o.current == d {
				o.broke(since, err)
			}
		})
		return nil
	})
	o.watch(ctx, p, d.ended, pl.Owed, pl.Break)
	o.c.deploy(d)
	o.c.publish(func(s *Status) { s.State, s.Detail, s.Plan = StateReady, "", p.ID.String() })
	o.announce(plan.Ready)
	o.c.cfg.Log.Info("ready", "plan", p.String())
	o.settle.Reset(settleTime) // shards may have come meanwhile
	o.tidy(ctx)
}

// broke sees to it that a pipeline gets a successor.
func (o *operator) broke(since time.Time, err error) {
	o.c.cfg.Log.Warn("the pipeline broke", "plan", o.current.plan.ID, "error", err)
	o.retire()
	if o.breaks++; time.Since(since) >= soonBroken {
		o.breaks = 0
	}
	o.soon(min(breakTime<<min(o.breaks, 16), maxBreakTime))
	o.c.publish(func(s *Status) { s.State, s.Detail = StateRecovering, "re-planning: "+err.Error() })
}

// tidy has the shards free what they hold of other plans, once no generation is left that ran in one of them.
func (o *operator) tidy(ctx context.Context) {
	o.retired = slices.DeleteFunc(o.retired, func(d *deployment) bool { return d.users.Load() == 0 })
	if o.current == nil || len(o.retired) > 0 {
		return
	}
	current, hops := o.current.plan.ID, o.hops()
	o.spawn(func() error {
		o.c.tidy(ctx, hops, current)
		return nil
	})
}

// headroom is what would be missing without each shard. It is reckoned anew only when the plan or the shards have changed.
func (o *operator) headroom() map[string]int64 {
	if o.current == nil {
		return nil
	}
	roster := o.usable()
	if o.reckoned.plan == o.current.plan && slices.Equal(o.reckoned.roster, roster) {
		return o.reckoned.missing
	}
	o.reckoned = reckoned{plan: o.current.plan, roster: roster, missing: make(map[string]int64)}
	losses, err := plan.Headroom(o.current.plan, roster, o.c.cfg.Shape)
	if err != nil {
		o.c.cfg.Log.Warn("no headroom can be reckoned", "error", err)
	}
	for _, l := range losses {
		o.reckoned.missing[l.Shard] = l.Missing
	}
	return o.reckoned.missing
}

// reckoned is the headroom of a plan among shards.
type reckoned struct {
	plan    *plan.Plan
	roster  plan.Roster
	missing map[string]int64 // bytes, by shard
}

// publish brings the shards' part of the status up to date.
func (o *operator) publish() {
	missing := o.headroom()
	shards := make([]ShardStatus, 0, len(o.links))
	for _, m := range o.links {
		s := ShardStatus{
			Name: m.Name, PID: m.PID, Address: m.Address, State: plan.Joining.String(),
			Cores: m.Cores, Memory: m.Memory, Stage: -1, Missing: missing[m.Name],
		}
		switch {
		case m.unfit != nil:
			s.State, s.Detail = "unfit", m.unfit.Error()
		case !m.ready:
			s.State = "unreachable"
		case m.State == plan.Draining:
			s.State = m.State.String()
		}
		if o.plan != nil {
			if _, place, ok := o.plan.Stage(m.Name); ok {
				stage := o.plan.Pipelines[0][place]
				s.First, s.Last, s.Planned, s.Stage = stage.Layers.First, stage.Layers.Last, stage.Memory(), place
				if s.State == plan.Joining.String() {
					s.State = plan.Loading.String()
					if o.current != nil {
						s.State = plan.Ready.String()
					}
				}
			} else if s.State == plan.Joining.String() && o.current != nil {
				s.State = "spare"
			}
		}
		shards = append(shards, s)
	}
	slices.SortFunc(shards, func(a, b ShardStatus) int {
		if a.Stage != b.Stage && a.Stage >= 0 && b.Stage >= 0 {
			return a.Stage - b.Stage
		}
		if (a.Stage < 0) != (b.Stage < 0) {
			return b.Stage - a.Stage
		}
		return strings.Compare(a.Name, b.Name)
	})
	o.c.mu.Lock()
	same := slices.Equal(shards, o.c.status.Shards)
	o.c.mu.Unlock()
	if !same {
		o.c.publish(func(s *Status) { s.Shards = shards })
	}
}
