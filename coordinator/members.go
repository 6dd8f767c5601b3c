package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/pass"
)

// member is a shard of the roster as the coordinator sees it.
type member struct {
	plan.Member
	link   Link
	port   *pipeline.Port // of the link
	cancel context.CancelCauseFunc
	ready  bool
	told   bool             // that its link is down: once is enough, until it is up again
	hope   time.Time        // until then planning waits for it: its link worked a moment ago, and is being dialled anew
	unfit  error            // why it gets no block; until it comes back as another process
	failed time.Time        // when it last could not load a block, for a reason that may pass
	held   pass.LoadedBlock // what it held of the model when its link came up
}

// A link that has died is tried again at once, and for so long planning waits for it: a connection may break while both
// ends live. A process that is gone refuses the connection, and is waited for no longer. After that the link is tried every
// so often while the roster lists the shard.
const (
	redialGrace = time.Second
	redialTime  = time.Second
)

var (
	errLeft     = errors.New("it has left, or does not answer")
	errReplaced = errors.New("its link is dialled anew")
	errSilent   = errors.New("it was given up")
)

// meet brings the links in line with a roster.
func (o *operator) meet(ctx context.Context, roster plan.Roster) {
	o.roster = roster.Shards()
	for name, m := range o.links {
		now, there := o.roster.Find(name)
		if there && now.PID == m.PID && now.Address == m.Address {
			if now.State == plan.Draining && m.State != plan.Draining {
				o.c.cfg.Log.Info("a shard is leaving", "shard", name)
				o.tight, o.untidy = false, true // what it holds of plans before is in its way as well
				o.settle.Reset(0)
			}
			m.Member = now
			continue
		}
		if !there && m.ready {
			o.doubt(ctx, m)
			continue
		}
		m.cancel(errLeft)
		delete(o.links, name)
		o.forgive(name)
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
	m.cancel(errLeft)
	o.forgive(m.Name)
	delete(o.links, m.Name)
	o.settle.Reset(0)
}

// dial opens the link to a shard and reports its rise and fall.
func (o *operator) dial(ctx context.Context, who plan.Member) *member {
	ctx, cancel := context.WithCancelCause(ctx)
	m := &member{Member: who, cancel: cancel}
	m.link = o.c.cfg.Dial(who, func(peer string, err error) {
		o.post(ctx, func(_ context.Context, o *operator) {
			o.fault(who.Name, peer, err)
		})
	})
	m.port = pipeline.NewPort(m.link)
	o.links[who.Name] = m
	o.spawn(func() error {
		linked, end := context.WithCancelCause(ctx) // a link whose results do not come is dialled again
		defer end(nil)
		var results sync.WaitGroup
		results.Go(func() {
			select {
			case <-m.link.Ready():
				end(fmt.Errorf("results: %w", m.port.Run(linked)))
			case <-m.link.Done():
			}
		})
		up := make(chan struct{})
		go func() {
			defer close(up)
			select {
			case <-m.link.Ready():
				held, err := o.c.try(ctx, m.link)
				o.post(ctx, func(_ context.Context, o *operator) {
					m.held = held
					o.greet(m, err)
				})
			case <-m.link.Done():
			}
		}()
		err := m.link.Run(linked)
		<-up
		end(err)
		results.Wait()
		if ctx.Err() != nil {
			return nil
		}
		o.post(ctx, func(ctx context.Context, o *operator) { o.hangUp(ctx, m, err) })
		return nil
	})
	return m
}

// redial gives a shard a new link in place of one that has died.
func (o *operator) redial(ctx context.Context, m *member) {
	m.cancel(errReplaced)
	o.dial(ctx, m.Member).told = m.told
}

// try has a shard load a block without layers, which takes nothing but the right model file: a shard that has another one
// must not be noticed only when a plan that works has made way for one with it. It says what the shard holds of the model.
func (c *Coordinator) try(ctx context.Context, h pipeline.Hop) (held pass.LoadedBlock, err error) {
	l := c.cfg.Load
	l.Plan = pass.PlanID{Leader: c.cfg.Name}
	if err := h.Load(ctx, l, func(pass.LoadProgress) {}); err != nil {
		return held, err
	}
	if err := h.Unload(ctx, l.Plan); err != nil {
		return held, err
	}
	d, err := h.Describe(ctx)
	for _, b := range d.Blocks {
		if b.SHA256 == l.SHA256 && b.Plan.Number > held.Plan.Number {
			held = b
		}
	}
	return held, err
}

// found is what shards were found to hold, as a plan that has gaps where nobody holds anything; nil if all is a gap. Only the
// newest plan counts that any of them has a block of.
func (o *operator) found() *plan.Plan {
	newest := pass.PlanID{}
	for _, m := range o.links {
		if id := m.held.Plan; m.ready && (id.Number > newest.Number || id.Number == newest.Number && id.Leader > newest.Leader) {
			newest = id
		}
	}
	var held []plan.Holding
	for _, m := range o.links {
		if m.ready && m.held.Plan == newest {
			held = append(held, plan.Holding{Shard: m.Name, Address: m.Address, Layers: m.held.Layers})
		}
	}
	return plan.Found(o.c.cfg.Shape, newest.Number, held)
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
	m.ready, m.told, o.tight = true, false, false
	switch {
	case !o.started && len(o.usable()) == o.c.cfg.Shards:
		o.settle.Reset(0) // all that were asked for
	case !o.started || o.serves():
		o.settle.Reset(settleTime)
	default:
		o.soon(0)
	}
}

// dying says whether a link has died whose end has not been told yet.
func (o *operator) dying() bool {
	for _, m := range o.links {
		if m.ready && isDone(m.link) {
			return true
		}
	}
	return false
}

// hangUp notes that a link has died, and has it tried again while the roster lists the shard, unless versions differ.
func (o *operator) hangUp(ctx context.Context, m *member, err error) {
	if o.links[m.Name] != m {
		return
	}
	worked := m.ready
	m.ready, m.hope = false, time.Time{}
	if _, there := o.roster.Find(m.Name); !there {
		o.drop(m, err)
		return
	}
	if errors.Is(err, pipeline.ErrVersion) {
		o.reject(m, err)
		o.settle.Reset(0)
		return
	}
	if !m.told {
		m.told = true
		o.c.cfg.Log.Warn("the link to a shard is down", "shard", m.Name, "address", m.Address, "error", err)
	}
	if worked {
		o.redial(ctx, m)
		o.links[m.Name].hope = time.Now().Add(redialGrace)
		o.soon(0)
		return
	}
	o.soon(0)
	o.dialLater(ctx, m)
}

// dialLater tries a link again after a while, if nothing else has become of its shard by then.
func (o *operator) dialLater(ctx context.Context, m *member) {
	time.AfterFunc(redialTime, func() {
		o.post(ctx, func(ctx context.Context, o *operator) {
			if o.links[m.Name] == m {
				o.redial(ctx, m)
			}
		})
	})
}

// reject keeps a shard from getting blocks.
func (o *operator) reject(m *member, err error) {
	m.unfit = err
	o.c.cfg.Log.Error("a shard cannot be used", "shard", m.Name, "error", err)
}

// retryLoad is for how long plans are made without a shard that could not load its block, if the others can hold the model.
const retryLoad = 30 * time.Second

// avoid has plans made without a shard for a while.
func (o *operator) avoid(ctx context.Context, m *member) {
	m.failed = time.Now()
	time.AfterFunc(retryLoad, func() {
		o.post(ctx, func(_ context.Context, o *operator) { o.settle.Reset(0) })
	})
}

// willing is a roster without the shards that are avoided.
func (o *operator) willing(roster plan.Roster) plan.Roster {
	return slices.DeleteFunc(slices.Clone(roster), func(m plan.Member) bool {
		return time.Since(o.links[m.Name].failed) < retryLoad
	})
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
