package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/pass"
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

// member is a shard of the roster as the coordinator sees it.
type member struct {
	plan.Member
	link   Link
	cancel context.CancelFunc
	ready  bool
	unfit  error // why it gets no block; until it comes back as another process
}

// event is what happened outside the loop, as something for the loop to do.
type event func(ctx context.Context, o *operator)

// settleTime is how long the loop waits for more shards after one has come, before it plans.
const settleTime = 300 * time.Millisecond

// breakTime is how long after a pipeline has broken a new plan is made, unless the links tell earlier what happened.
const breakTime = 100 * time.Millisecond

// A link that has died is tried again at once, and for so long planning waits for it: a connection may break while both
// ends live. After that it is tried every so often while the roster lists the shard.
const (
	redialGrace = 2 * time.Second
	redialTime  = time.Second
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

// meet brings the links in line with a roster.
func (o *operator) meet(ctx context.Context, roster plan.Roster) {
	o.roster = roster.Shards()
	for name, m := range o.links {
		now, there := o.roster.Find(name)
		if there && now.PID == m.PID && now.Address == m.Address {
			m.Member = now
			continue
		}
		if !there && m.ready {
			o.doubt(ctx, m)
			continue
		}
		m.cancel()
		delete(o.links, name)
		o.settle.Reset(settleTime)
	}
	for _, m := range o.roster {
		if o.links[m.Name] == nil {
			o.dial(ctx, m)
		}
	}
}

// probeTimeout is how long a shard that gossip has lost may take to give a sign of life.
const probeTimeout = 5 * time.Second

// doubt sees whether a shard that has left the roster is gone. Gossip may be mistaken about a machine under load, and a link
// that lives knows better; hangUp sees its end.
func (o *operator) doubt(ctx context.Context, m *member) {
	o.spawn(func() error {
		probe, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		if _, _, err := m.link.Probe(probe); err != nil {
			o.post(ctx, func(_ context.Context, o *operator) {
				if _, back := o.roster.Find(m.Name); o.links[m.Name] == m && !back {
					o.drop(m, err)
				}
			})
		}
		return nil
	})
}

// drop forgets a shard that has left.
func (o *operator) drop(m *member, why error) {
	o.c.cfg.Log.Info("a shard has left", "shard", m.Name, "reason", why)
	m.cancel()
	delete(o.links, m.Name)
	o.settle.Reset(0)
}

// dial opens the link to a shard and reports its rise and fall.
func (o *operator) dial(ctx context.Context, who plan.Member) {
	ctx, cancel := context.WithCancel(ctx)
	m := &member{Member: who, cancel: cancel}
	m.link = o.c.cfg.Dial(who, func(peer string, err error) {
		o.post(ctx, func(_ context.Context, o *operator) {
			if o.current != nil && o.uses(who.Name, peer) {
				o.current.pipeline.Break(fmt.Errorf("shard %s lost passes to shard %s: %w", who.Name, peer, err))
			}
		})
	})
	o.links[who.Name] = m
	o.spawn(func() error {
		up := make(chan struct{})
		go func() {
			defer close(up)
			select {
			case <-m.link.Ready():
				err := o.c.try(ctx, m.link)
				o.post(ctx, func(_ context.Context, o *operator) { o.greet(m, err) })
			case <-m.link.Done():
			}
		}()
		err := m.link.Run(ctx)
		<-up
		if ctx.Err() != nil {
			return nil
		}
		o.post(ctx, func(ctx context.Context, o *operator) { o.hangUp(ctx, m, err) })
		return nil
	})
}

// uses says whether passes of the current plan go from one shard straight to the other. A link that a former plan needed
// may break without harm.
func (o *operator) uses(from, to string) bool {
	_, i, sends := o.current.plan.Stage(from)
	_, j, receives := o.current.plan.Stage(to)
	return sends && receives && j == i+1
}

// try has a shard load a block without layers, which takes nothing but the right model file: a shard that has another one
// must not be noticed only when a plan that works has made way for one with it.
func (c *Coordinator) try(ctx context.Context, h pipeline.Hop) error {
	l := c.cfg.Load
	l.Plan = pass.PlanID{Leader: c.cfg.Name}
	if err := h.Load(ctx, l, func(pass.LoadProgress) {}); err != nil {
		return err
	}
	return h.Unload(ctx, l.Plan)
}

// greet notes that a link is up, and whether its shard can be used.
func (o *operator) greet(m *member, err error) {
	switch {
	case o.links[m.Name] != m || errors.Is(err, pipeline.ErrBroken):
		return // hangUp sees to it
	case err != nil:
		o.reject(m, err)
		return
	}
	m.ready = true
	switch {
	case !o.started || o.current != nil:
		o.settle.Reset(settleTime)
	case o.whole():
		o.settle.Reset(0) // it was the one that planning waited for
	default:
		o.settle.Reset(redialGrace)
	}
}

// whole says whether every shard of the roster that can be of use is reached.
func (o *operator) whole() bool {
	for _, m := range o.links {
		if !m.ready && m.unfit == nil {
			return false
		}
	}
	return true
}

// hangUp notes that a link has died, and has it tried again while the roster lists the shard, unless versions differ.
func (o *operator) hangUp(ctx context.Context, m *member, err error) {
	if o.links[m.Name] != m {
		return
	}
	worked := m.ready
	m.ready = false
	if _, there := o.roster.Find(m.Name); !there {
		o.drop(m, err)
		return
	}
	if errors.Is(err, pipeline.ErrVersion) {
		o.reject(m, err)
		o.settle.Reset(0)
		return
	}
	o.c.cfg.Log.Warn("the link to a shard is down", "shard", m.Name, "address", m.Address, "error", err)
	if worked {
		o.settle.Reset(redialGrace)
		m.cancel()
		o.dial(ctx, m.Member)
		return
	}
	o.settle.Reset(0)
	time.AfterFunc(redialTime, func() {
		o.post(ctx, func(ctx context.Context, o *operator) {
			if o.links[m.Name] == m {
				m.cancel()
				o.dial(ctx, m.Member)
			}
		})
	})
}

// reject keeps a shard from getting blocks.
func (o *operator) reject(m *member, err error) {
	m.unfit = err
	o.c.cfg.Log.Error("a shard cannot be used", "shard", m.Name, "error", err)
}

// usable is the roster of the shards that can take a block now.
func (o *operator) usable() plan.Roster {
	var members []plan.Member
	for _, m := range o.links {
		if m.ready && m.unfit == nil && m.State != plan.Draining {
			members = append(members, m.Member)
		}
	}
	return plan.NewRoster(members...)
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
	if !o.started && len(roster) < o.c.cfg.Shards {
		o.wait(fmt.Sprintf("%d of %d shards are here", len(roster), o.c.cfg.Shards))
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
			if err := h.Unload(ctx, p.ID); err != nil && !errors.Is(err, pipeline.ErrBroken) {
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
