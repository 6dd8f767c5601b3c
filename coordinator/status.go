package coordinator

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

// States of a cluster.
const (
	StateWaiting    = "waiting" // for shards that were never there, or for more memory
	StateLoading    = "loading"
	StateReady      = "ready"
	StateRecovering = "recovering" // a plan was lost; another is made, or shards are waited for to make one
)

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
	if p := o.planned(); p != nil {
		number = p.ID.Number
	}
	o.c.cfg.Planned(number, state)
}

// ready says that there is a plan that works.
func (o *operator) ready() {
	o.publish()
	o.c.publish(func(s *Status) { s.State, s.Detail, s.Plan = StateReady, "", o.current.plan.ID.String() })
	o.announce(plan.Ready)
	o.c.cfg.Log.Info("ready", "plan", o.current.plan.String())
}

// planned is the plan that serves, else the one that is being loaded; nil: there is none.
func (o *operator) planned() *plan.Plan {
	switch {
	case o.serves():
		return o.current.plan
	case o.coming != nil:
		return o.coming.plan
	}
	return nil
}

// cannotLeave says why a plan without the shards that are to leave, or have left, was not to be had.
func (o *operator) cannotLeave(why error) {
	var leaving []string
	for _, m := range o.links {
		if _, _, used := o.current.plan.Stage(m.Name); used && m.State == plan.Draining {
			leaving = append(leaving, m.Name)
		}
	}
	if len(leaving) == 0 {
		return
	}
	slices.Sort(leaving)
	detail := fmt.Sprintf("%s cannot leave yet, nobody can take its place: %v", strings.Join(leaving, ", "), why)
	if o.c.Status().Detail != detail {
		o.c.cfg.Log.Warn("a shard cannot leave yet", "shards", leaving, "reason", why)
		o.c.publish(func(s *Status) { s.Detail = detail })
	}
}

// headroom is what would be missing without each shard. It is reckoned anew only when the plan or the shards have changed.
func (o *operator) headroom() map[string]int64 {
	if o.current == nil || o.coming != nil || !o.serves() { // there are more urgent things to do
		return o.reckoned.missing
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
	missing, serves := o.headroom(), o.serves()
	shards := make([]ShardStatus, 0, len(o.links))
	for _, m := range o.links {
		s := ShardStatus{
			Name: m.Name, PID: m.PID, Address: m.Address, State: plan.Joining.String(),
			Cores: m.Cores, Memory: m.Memory, Stage: -1, Missing: missing[m.Name], Pipelines: []int{},
		}
		if p := o.planned(); p != nil {
			if _, place, ok := p.Stage(m.Name); ok {
				s.place(p, place)
				s.Stage, s.Pipelines = place, p.Through(m.Name)
				if s.State = plan.Loading.String(); serves {
					s.State = plan.Ready.String()
				}
			} else if serves {
				s.State = "spare"
			}
		}
		if o.coming != nil && s.Stage < 0 {
			if _, place, ok := o.coming.plan.Stage(m.Name); ok {
				s.place(o.coming.plan, place)
				s.State = plan.Loading.String()
			}
		}
		switch {
		case m.unfit != nil:
			s.State, s.Detail = "unfit", m.unfit.Error()
		case !m.ready:
			s.State = "unreachable"
		case m.State == plan.Draining:
			s.State = m.State.String()
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
	same := slices.EqualFunc(shards, o.c.status.Shards, func(a, b ShardStatus) bool { return reflect.DeepEqual(a, b) })
	o.c.mu.Unlock()
	if !same {
		o.c.publish(func(s *Status) { s.Shards = shards })
	}
}

// place says which block of a plan the shard holds.
func (s *ShardStatus) place(p *plan.Plan, place int) {
	stage := p.Pipelines[0][place]
	s.First, s.Last, s.Planned = stage.Layers.First, stage.Layers.Last, stage.Memory()
}
