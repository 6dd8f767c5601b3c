package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/pass"
)

// route is a pipeline through a deployment: one holder of each block. Generations live in it until it breaks or is left.
type route struct {
	key      string // the plan and the shards
	plan     pass.PlanID
	stages   []plan.Stage
	ports    []*pipeline.Port
	pipeline *pipeline.Pipeline
	speed    float64 // beside other routes of the plan
	since    time.Time
	end      context.CancelFunc

	users int           // generations that have begun in it, and nowhere else since; Coordinator.mu
	left  atomic.Bool   // it is no way through the current plan: those who are in it shall move; set under Coordinator.mu
	ended bool          // its pipeline has, and the operator knows; Coordinator.mu
	dealt chan struct{} // closed once the operator has seen the end of it, and found another way if there is one
}

// blocks are the layers of its stages.
func (r *route) blocks() []model.Layers {
	var blocks []model.Layers
	for _, s := range r.stages {
		blocks = append(blocks, s.Layers)
	}
	return blocks
}

// works says whether the route can carry anything.
func (r *route) works() bool { return r.pipeline.Err() == nil }

// load is how busy a stage of the route would be with one generation more.
func (r *route) load() float64 { return float64(r.users+1) / r.speed }

// speedOf is how fast the slowest stage of a chain is. A shard that has not measured counts with the mean of those that have.
func speedOf(stages []plan.Stage, roster plan.Roster) float64 {
	sum, known := 0.0, 0.0
	for _, m := range roster {
		if m.Speed > 0 {
			sum, known = sum+m.Speed, known+1
		}
	}
	slowest := 0.0
	for _, s := range stages {
		m, _ := roster.Find(s.Shard)
		slowest = max(slowest, float64(s.Weights)/cmp.Or(m.Speed, sum/max(known, 1), 1))
	}
	return 1 / max(slowest, 1e-12)
}

// order says which of two routes is the better one: the more there is in it for a generation, first by what its shards hold
// of the sequence, where keeping counts most, or first by how busy they are.
func (g *generation) order(keeping bool) func(a, b *route) int {
	held := func(r *route) (layers int) {
		for i, s := range r.stages {
			if g.places[s.Shard] == r.ports[i] {
				layers += s.Layers.Len()
			}
		}
		return layers
	}
	return func(a, b *route) int {
		byHeld, byLoad := cmp.Compare(held(b), held(a)), cmp.Compare(a.load(), b.load())
		if keeping {
			return cmp.Or(byHeld, byLoad)
		}
		return cmp.Or(byLoad, byHeld)
	}
}

// enter chooses a route for a generation. Where there is none it waits for one, until a time, unless shards are still waited
// for that were never there: only who starts the cluster can say when they will be.
func (g *generation) enter(ctx context.Context, until time.Time) error {
	limit := time.NewTimer(time.Until(until))
	defer limit.Stop()
	lost := g.route != nil
	if lost && !g.route.works() {
		select {
		case <-g.route.dealt: // it may be the way through the shards that are left of it
		case <-limit.C:
			limit.Reset(0)
		case <-g.c.over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		state, detail, changed := g.choose(lost)
		switch {
		case changed == nil:
			return nil
		case state == StateWaiting:
			return fmt.Errorf("%w: %s", ErrNotReady, detail)
		}
		select {
		case <-changed:
		case <-limit.C:
			return fmt.Errorf("%w: it is %s: %s", ErrNotReady, state, detail)
		case <-g.c.over:
			return fmt.Errorf("%w: the coordinator has stopped", ErrNotReady)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// choose takes the best route that works, or says what state the cluster is in and when that has changed.
func (g *generation) choose(keeping bool) (state, detail string, changed <-chan struct{}) {
	g.c.mu.Lock()
	defer g.c.mu.Unlock()
	if routes := g.c.working(); len(routes) > 0 {
		best := slices.MinFunc(routes, g.order(keeping))
		if !slices.Contains(g.held, best) {
			best.users++
			g.held = append(g.held, best)
		}
		g.route = best
		return "", "", nil
	}
	return g.c.status.State, g.c.status.Detail, g.c.changed
}

// leaveAllBut says that a generation needs nothing of the routes before any more; of none: nil.
func (g *generation) leaveAllBut(r *route) {
	g.c.mu.Lock()
	defer g.c.mu.Unlock()
	g.held = slices.DeleteFunc(g.held, func(other *route) bool {
		if other == r {
			return false
		}
		if other.users--; other.users == 0 && other.left.Load() {
			select {
			case g.c.emptied <- struct{}{}:
			default:
			}
		}
		return true
	})
}

// working are the routes that can be entered. The caller holds the lock.
func (c *Coordinator) working() []*route {
	return slices.DeleteFunc(slices.Clone(c.routes), func(r *route) bool { return r.left.Load() || !r.works() })
}
