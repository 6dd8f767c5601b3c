package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/coordinator/plan"
)

// operator is the state of the coordinator's loop; nothing else touches it.
type operator struct {
	c      *Coordinator
	spawn  func(func() error)
	events chan event

	roster   plan.Roster
	links    map[string]*member // by shard name
	current  *deployment        // that serves, or did until shards were lost; nil: there was none, or it has made room
	coming   *loading           // the next one, on its way; its end will come as an event
	base     *plan.Plan         // the last one that was loaded: what the shards hold
	number   uint64             // of the last plan made, also of one that could not be loaded
	started  bool               // a plan was loaded once: from now on fewer shards than asked for will do
	tight    bool               // the next plan does not fit beside the one that works: wait until nothing runs, or shards change
	untidy   bool               // shards may hold plans of before
	setbacks map[string]*setback
	settle   *time.Timer

	reckoned reckoned
}

// event is what happened outside the loop, as something for the loop to do.
type event func(ctx context.Context, o *operator)

// settleTime is how long the loop waits for more shards after one has come, before it plans.
const settleTime = 300 * time.Millisecond

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
			if o.serves() { // without a plan that works, waiting has another reason
				o.tight = false
				o.settle.Reset(0)
			}
		case <-o.c.emptied:
			o.leave(ctx, func(*route) bool { return false })
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
	o.arrange(ctx)
	serves := o.serves()
	if l := o.coming; l != nil { // its end replans
		if l.adopted && !serves {
			l.cancel() // what is still to come of it cannot be waited for
		}
		return
	}
	if !serves && o.dying() {
		return // and its end will say when to plan
	}
	roster := o.usable()
	missing := o.missing(roster)
	switch {
	case !serves || missing:
	case o.c.active.Load() > 0, o.tight:
		return
	case o.c.recovering.count() > 0: // what is only better can wait
		o.settle.Reset(settleTime)
		return
	}
	base := o.base
	if base == nil {
		base = o.found()
	}
	// A coordinator that finds all layers loaded is the next life of one that had the shards it asked for.
	if asked := max(1, o.c.cfg.Shards); !o.started && len(roster) < asked && (base == nil || !base.Whole()) {
		o.wait(fmt.Sprintf("%d of %d shards are here", len(roster), asked))
		return
	}
	next, err := o.solve(roster, base, plan.Options{Leader: o.c.cfg.Name, Keep: !serves || missing})
	switch {
	case err != nil && serves:
		o.cannotLeave(err)
		return
	case err != nil:
		o.wait(err.Error())
		return
	case o.current != nil && next.ID == o.current.plan.ID:
		o.current.plan = next // its spares may be others
		o.load(ctx, o.current)
		return
	case o.base == nil || next.ID != o.base.ID: // a name is never used twice: shards may still be loading for its former bearer
		next.ID.Number = max(next.ID.Number, o.number+1)
		o.number = next.ID.Number
	}
	if serves && o.tight && o.c.active.Load() > 0 {
		return // it has been tried
	}
	o.load(ctx, &deployment{plan: next, loaded: make(map[string]*pipeline.Port)})
}

// missing says whether the plan that serves has a holder that is gone or is to leave.
func (o *operator) missing(roster plan.Roster) bool {
	if o.current == nil {
		return false
	}
	for _, stages := range o.current.plan.Pipelines {
		for _, s := range stages {
			if _, there := roster.Find(s.Shard); !there {
				return true
			}
		}
	}
	return false
}

// solve makes a plan without the shards that are avoided, and around the links that stay broken, if there is one: without one
// of the shards that cannot reach each other.
func (o *operator) solve(roster plan.Roster, base *plan.Plan, options plan.Options) (*plan.Plan, error) {
	all := roster
	roster = o.willing(all)
	next, err := plan.Solve(roster, o.c.cfg.Shape, base, options)
	if err != nil && len(roster) < len(all) {
		roster = all
		next, err = plan.Solve(roster, o.c.cfg.Shape, base, options)
	}
	if err != nil {
		return nil, err
	}
	for _, shard := range o.apart(next) {
		without := slices.DeleteFunc(slices.Clone(roster), func(m plan.Member) bool { return m.Name == shard })
		other, err := plan.Solve(without, o.c.cfg.Shape, base, options)
		if err == nil && len(o.apart(other)) == 0 {
			return other, nil
		}
	}
	return next, nil
}

// apart are the shards of a plan at the ends of links that stay broken, also where another chain of it goes around those.
func (o *operator) apart(p *plan.Plan) (shards []string) {
	for i := range p.Stages() - 1 {
		for _, from := range p.Holders(i) {
			for _, to := range p.Holders(i + 1) {
				if o.shunned(linkOf(from.Shard, to.Shard)) {
					shards = append(shards, to.Shard, from.Shard)
				}
			}
		}
	}
	return shards
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

// withdraw takes the deployment out of service at once.
func (o *operator) withdraw(ctx context.Context) {
	o.current = nil
	o.leave(ctx, func(r *route) bool {
		r.pipeline.Break(errors.New("a new plan replaces it"))
		return true
	})
}

// adopt puts a deployment to work. Generations in the one before move when they can.
func (o *operator) adopt(ctx context.Context, d *deployment) {
	o.current, o.base, o.started, o.untidy = d, d.plan, true, true
	o.arrange(ctx)
	o.settle.Reset(settleTime) // shards may have come meanwhile
}

// tidyAgain is when what shards did not free is tried again.
const tidyAgain = time.Second

// tidy has the shards free what they hold of plans before, once no generation is left that ran in one of them.
func (o *operator) tidy(ctx context.Context) {
	if o.current == nil || !o.untidy {
		return
	}
	o.c.mu.Lock()
	left := slices.ContainsFunc(o.c.routes, func(r *route) bool { return r.plan != o.current.plan.ID })
	o.c.mu.Unlock()
	if left {
		return
	}
	o.untidy = false
	current, hops := o.current.plan.ID, o.hops()
	o.spawn(func() error {
		if o.c.tidy(ctx, hops, current) {
			return nil
		}
		time.AfterFunc(tidyAgain, func() {
			o.post(ctx, func(ctx context.Context, o *operator) {
				o.untidy = true
				o.tidy(ctx)
			})
		})
		return nil
	})
}
