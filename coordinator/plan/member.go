package plan

import (
	"cmp"
	"fmt"
	"slices"
)

// Role is what a member does.
type Role uint8

const (
	Shard Role = iota
	Coordinator
)

func (r Role) String() string {
	switch r {
	case Shard:
		return "shard"
	case Coordinator:
		return "coordinator"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// State is how far a member has come.
type State uint8

const (
	Joining  State = iota // it holds no block yet
	Loading               // it reads the weights of its block
	Ready                 // it serves
	Draining              // it leaves: nothing new is planned on it
)

var states = [...]string{Joining: "joining", Loading: "loading", Ready: "ready", Draining: "draining"}

func (s State) String() string {
	if int(s) < len(states) {
		return states[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Member is what a process tells the others about itself.
type Member struct {
	Name     string
	Address  string // host:port, of gRPC and gossip alike
	Role     Role
	PID      int
	Cores    int
	Memory   int64   // bytes on offer
	Speed    float64 // measured memory read bandwidth, GB/s; 0: unknown
	State    State
	Plan     uint64 // number of the plan it holds a block of; 0: none
	Protocol uint32 // 0 only where a member was made up, as for `daisy plan`
	Numerics uint32
	Version  string // of the binary
}

// Roster is a snapshot of the members, sorted by name. Nobody changes it once it is made.
type Roster []Member

// NewRoster sorts a copy of the members.
func NewRoster(members ...Member) Roster {
	r := slices.Clone(Roster(members))
	slices.SortFunc(r, compareMembers)
	return r
}

// compareMembers orders by name; the rest only keeps a roster with equal names, which membership does not allow, from
// depending on its order.
func compareMembers(a, b Member) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Address, b.Address), cmp.Compare(a.PID, b.PID))
}

// Shards are the members that can hold a block.
func (r Roster) Shards() Roster { return r.only(Shard) }

// Coordinators are the members that plan and accept requests.
func (r Roster) Coordinators() Roster { return r.only(Coordinator) }

func (r Roster) only(role Role) Roster {
	var members Roster
	for _, m := range r {
		if m.Role == role {
			members = append(members, m)
		}
	}
	return members
}

// Find looks a member up by its name.
func (r Roster) Find(name string) (Member, bool) {
	i := slices.IndexFunc(r, func(m Member) bool { return m.Name == name })
	if i < 0 {
		return Member{}, false
	}
	return r[i], true
}
