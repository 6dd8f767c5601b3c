package coordinator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/coordinator/plan"
)

// deployment is a plan, and who has loaded its block of it, by the link over which they said so: over another one they may be
// another process.
type deployment struct {
	plan   *plan.Plan
	loaded map[string]*pipeline.Port // by shard
}

// arrange brings the routes in line with the current plan, the shards that live and the ways between them: it opens those that
// are missing, and has those left that are none any more.
func (o *operator) arrange(ctx context.Context) {
	if o.current == nil {
		return
	}
	served := o.serves()
	chains, retry := o.chains(o.current)
	wanted := make(map[string]bool)
	for _, chain := range chains {
		key := o.current.plan.ID.String() + chainOf(shardsOf(chain))
		wanted[key] = true
		if o.route(key) == nil {
			if err := o.open(ctx, key, chain); err != nil {
				o.c.cfg.Log.Error("a pipeline cannot be opened", "plan", o.current.plan.ID, "error", err)
			}
		}
	}
	o.leave(ctx, func(r *route) bool { return !wanted[r.key] })
	if serves := o.serves(); serves && !served || serves && o.c.Status().Plan != o.current.plan.ID.String() {
		o.ready()
	}
	if !retry.IsZero() {
		o.settle.Reset(time.Until(retry))
	}
}

// chains are the ways through a deployment's living holders, those of the plan as far as possible, each once. Where ways are
// barred, retry is when the first of them may be taken again.
func (o *operator) chains(d *deployment) (chains [][]plan.Stage, retry time.Time) {
	dead := make(map[string]bool)
	for _, stages := range d.plan.Pipelines {
		for _, s := range stages {
			dead[s.Shard] = !o.holds(d, s.Shard)
		}
	}
	seen := make(map[string]bool)
	for i := range d.plan.Pipelines {
		chain, until := o.way(d.plan, i, dead, maxDetours)
		if !until.IsZero() && (retry.IsZero() || until.Before(retry)) {
			retry = until
		}
		if key := chainOf(shardsOf(chain)); chain != nil && !seen[key] {
			seen[key] = true
			chains = append(chains, chain)
		}
	}
	return chains, retry
}

// maxDetours bounds how many barred ways are gone around in one chain.
const maxDetours = 3

// way is a chain for a pipeline that is not barred, by any other holder that either end of a barred way has; nil if there is none.
func (o *operator) way(p *plan.Plan, pipeline int, dead map[string]bool, detours int) (chain []plan.Stage, retry time.Time) {
	chain = p.Reroute(pipeline, dead)
	if chain == nil {
		return nil, time.Time{}
	}
	shards := shardsOf(chain)
	if until := o.barred(chainOf(shards)); !until.IsZero() { // nobody knows where in it
		return nil, until
	}
	for i := range shards[1:] {
		until := o.barred(linkOf(shards[i], shards[i+1]))
		if until.IsZero() {
			continue
		}
		for _, avoided := range []string{shards[i+1], shards[i]} {
			without := maps.Clone(dead)
			without[avoided] = true
			if detours > 0 {
				if chain, _ := o.way(p, pipeline, without, detours-1); chain != nil {
					return chain, until
				}
			}
		}
		return nil, until
	}
	return chain, time.Time{}
}

// holds says whether a shard lives that has loaded its block of a deployment.
func (o *operator) holds(d *deployment, shard string) bool {
	m := o.links[shard]
	return m != nil && m.ready && d.loaded[shard] == m.port && !isDone(m.link)
}

func isDone(h pipeline.Hop) bool {
	select {
	case <-h.Done():
		return true
	default:
		return false
	}
}

func shardsOf(chain []plan.Stage) []string {
	var shards []string
	for _, s := range chain {
		shards = append(shards, s.Shard)
	}
	return shards
}

// route finds a route that works by its name.
func (o *operator) route(key string) *route {
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	for _, r := range o.c.routes {
		if r.key == key && r.works() && !r.left.Load() {
			return r
		}
	}
	return nil
}

// serves says whether there is a route that generations can enter.
func (o *operator) serves() bool { return o.c.Ready() }

// open makes a route and lets generations in.
func (o *operator) open(ctx context.Context, key string, chain []plan.Stage) error {
	r := &route{key: key, plan: o.current.plan.ID, stages: chain, speed: speedOf(chain, o.roster), since: time.Now(), dealt: make(chan struct{})}
	for _, s := range chain {
		r.ports = append(r.ports, o.current.loaded[s.Shard])
	}
	var err error
	r.pipeline, err = pipeline.New(pipeline.Config{
		Coordinator: o.c.cfg.Name,
		Plan:        o.current.plan.ID,
		Stages:      plan.Route(chain),
		Ports:       r.ports,
		Hidden:      o.c.cfg.Model.Hidden,
		Passes:      &o.c.passes,
	})
	if err != nil {
		return err
	}
	running, end := context.WithCancel(ctx)
	r.end = end
	o.spawn(func() error {
		err := r.pipeline.Run(running)
		end()
		o.post(ctx, func(ctx context.Context, o *operator) { o.ended(ctx, r, err) })
		return nil
	})
	o.watch(running, shardsOf(chain), r.pipeline.Owed, r.pipeline.Break)
	o.c.publish(func(*Status) { o.c.routes = append(o.c.routes, r) })
	return nil
}

// leave has generations leave the routes that a condition says, and ends those that nobody is in. What shards hold of a route's
// plan is of use to those who are in it even when it has broken.
func (o *operator) leave(ctx context.Context, condition func(*route) bool) {
	o.c.mu.Lock()
	o.c.routes = slices.DeleteFunc(o.c.routes, func(r *route) bool {
		if condition(r) {
			r.left.Store(true)
		}
		if r.left.Load() && r.users == 0 {
			r.end()
			return r.ended
		}
		return false
	})
	o.c.mu.Unlock()
	o.tidy(ctx)
}

// ended sees what the end of a route's pipeline means.
func (o *operator) ended(ctx context.Context, r *route, err error) {
	defer close(r.dealt)
	before := r.left.Load()
	o.c.publish(func(*Status) { r.ended = true })
	o.leave(ctx, func(other *route) bool { return other == r })
	if before {
		return
	}
	o.c.cfg.Log.Warn("a pipeline broke", "plan", r.plan, "shards", strings.Join(shardsOf(r.stages), ", "), "error", err)
	if !errors.Is(err, errFault) && !slices.ContainsFunc(r.ports, func(p *pipeline.Port) bool { return isDone(p) }) {
		o.setback(chainOf(shardsOf(r.stages)), time.Since(r.since))
	}
	o.arrange(ctx)
	if !o.serves() {
		o.c.publish(func(s *Status) { s.State, s.Detail = StateRecovering, "re-planning: "+err.Error() })
	}
	o.soon(breakTime)
}

// errFault: a link between two shards broke, and it is known which.
var errFault = errors.New("a link between shards broke")

// fault breaks the pipelines over a link from one shard to another.
func (o *operator) fault(from, to string, err error) {
	way := linkOf(from, to)
	worked, used := time.Duration(0), false
	o.c.mu.Lock()
	routes := slices.Clone(o.c.routes)
	o.c.mu.Unlock()
	for _, r := range routes {
		shards := shardsOf(r.stages)
		for i := range shards[1:] {
			if linkOf(shards[i], shards[i+1]) == way && r.works() {
				worked, used = max(worked, time.Since(r.since)), true
				r.pipeline.Break(fmt.Errorf("%w: shard %s lost passes to shard %s: %w", errFault, from, to, err))
			}
		}
	}
	if used {
		o.setback(way, worked)
	}
}
