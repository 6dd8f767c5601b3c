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
	StateWaiting = "waiting" // for shards, or for more memory
	StateLoading = "loading"
	StateReady   = "ready"
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
	ending  <-chan struct{} // closed when the pipeline of the deployment before has ended; nil: there was none
	plan    *plan.Plan      // the last plan made; may be loaded, or half so
	number  uint64          // of the last plan made, also of one that could not be loaded
	started bool            // a plan was loaded once: from now on fewer shards than asked for will do
	settle  *time.Timer
}

// event is what happened outside the loop, as something for the loop to do.
type event func(ctx context.Context, o *operator)

// settleTime is how long the loop waits for more shards after one has come, before it plans.
const settleTime = 300 * time.Millisecond

// breakTime is how long after a pipeline has broken a new plan is made, unless the links tell earlier what happened.
const breakTime = 100 * time.Millisecond

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

// replan makes a plan of what there is, if that is better than what runs, and starts to load it.
func (o *operator) replan(ctx context.Context) {
	if o.loading {
		return // its end replans
	}
	whole := o.current != nil && o.current.pipeline.Err() == nil
	if whole && o.c.active.Load() > 0 {
		return // the last of them says idle
	}
	roster := o.usable()
	if asked := max(1, o.c.cfg.Shards); !o.started && len(roster) < asked {
		o.wait(fmt.Sprintf("%d of %d shards are here", len(roster), asked))
		return
	}
	next, err := plan.Solve(roster, o.c.cfg.Shape, o.plan, plan.Options{Leader: o.c.cfg.Name})
	if err != nil {
		if !whole {
			o.retire()
			o.wait(err.Error())
		}
		return
	}
	if whole && o.plan != nil && next.ID == o.plan.ID {
		return
	}
	if whole && !o.c.withdraw() {
		return // a request has come meanwhile
	}
	o.retire()
	if o.plan == nil || next.ID != o.plan.ID { // a name is never used twice: shards may still be loading for its former bearer
		next.ID.Number = max(next.ID.Number, o.number+1)
		o.number = next.ID.Number
	}
	o.plan, o.loading = next, true
	o.c.cfg.Log.Info("loading", "plan", next.String())
	o.c.publish(func(s *Status) { s.State, s.Detail, s.Plan = StateLoading, "loading "+next.String(), next.ID.String() })
	o.announce(plan.Loading)
	hops, ending := o.hops(), o.ending
	o.spawn(func() error {
		if ending != nil {
			<-ending // it shares hops, and results, with the one to come
		}
		p, failed, err := o.c.load(ctx, next, hops)
		o.post(ctx, func(ctx context.Context, o *operator) { o.loaded(ctx, next, p, failed, err) })
		return nil
	})
}

// hops are the links to all shards that can be reached.
func (o *operator) hops() map[string]pipeline.Hop {
	hops := make(map[string]pipeline.Hop)
	for name, m := range o.links {
		if m.ready {
			hops[name] = m.link
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
	o.ending = o.current.ended
	o.current = nil
}

// wait says what the cluster is waiting for.
func (o *operator) wait(why string) {
	if o.c.Status().Detail != why {
		o.c.cfg.Log.Info("waiting", "for", why)
	}
	o.c.publish(func(s *Status) { s.State, s.Detail, s.Plan = StateWaiting, why, "" })
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
func (o *operator) loaded(ctx context.Context, p *plan.Plan, pl *pipeline.Pipeline, failed string, err error) {
	o.loading = false
	if err == nil {
		err = pl.Err()
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		o.c.cfg.Log.Error("a plan could not be loaded", "plan", p.String(), "error", err)
		if m := o.links[failed]; m != nil && (errors.Is(err, pipeline.ErrModel) || errors.Is(err, pipeline.ErrMemory)) {
			o.reject(m, err)
		}
		o.plan = nil
		o.c.publish(func(s *Status) { s.State, s.Detail, s.Plan = StateWaiting, err.Error(), "" })
		o.settle.Reset(redialTime)
		return
	}
	d := &deployment{plan: p, pipeline: pl, ended: make(chan struct{})}
	o.current, o.started = d, true
	o.spawn(func() error {
		err := pl.Run(ctx)
		close(d.ended)
		if ctx.Err() != nil {
			return nil
		}
		o.post(ctx, func(_ context.Context, o *operator) {
			if o.current == d {
				o.c.cfg.Log.Warn("the pipeline broke", "plan", p.ID, "error", err)
				o.retire()
				o.settle.Reset(breakTime)
				if !o.whole() {
					o.settle.Reset(redialGrace)
				}
				o.c.publish(func(s *Status) { s.State, s.Detail = StateLoading, "re-planning: "+err.Error() })
			}
		})
		return nil
	})
	o.c.deploy(d)
	o.c.publish(func(s *Status) { s.State, s.Detail, s.Plan = StateReady, "", p.ID.String() })
	o.announce(plan.Ready)
	o.c.cfg.Log.Info("ready", "plan", p.String())
	o.settle.Reset(settleTime) // shards may have come meanwhile
}

// publish brings the shards' part of the status up to date.
func (o *operator) publish() {
	shards := make([]ShardStatus, 0, len(o.links))
	for _, m := range o.links {
		s := ShardStatus{
			Name: m.Name, PID: m.PID, Address: m.Address, State: plan.Joining.String(),
			Cores: m.Cores, Memory: m.Memory, Stage: -1,
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
