package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

// maxMembers bounds the roster, whatever peers make up.
const maxMembers = 1024

// delegate is what memberlist calls, often with its own lock held: nothing here waits or calls back.
type delegate struct{ *Cluster }

// NodeMeta is what this process says of itself.
func (d delegate) NodeMeta(int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return encodeMeta(d.members[d.name])
}

// NotifyAlive refuses members that none of ours could be, before memberlist believes in them.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == d.name {
		return nil // about ourselves; memberlist corrects what is wrong
	}
	_, err := memberOf(n)
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.members[n.Name]; !known && err == nil && len(d.members) >= maxMembers {
		err = fmt.Errorf("there are %d members already", maxMembers)
	}
	if err != nil {
		d.tellLocked(clip(n.Name), fmt.Sprintf("a member is refused: %v", err), n)
	}
	return err
}

// NotifyJoin and NotifyUpdate bring a member whose metadata NotifyAlive has seen.
func (d delegate) NotifyJoin(n *memberlist.Node) {
	m, err := memberOf(n)
	if n.Name == d.name || err != nil {
		return
	}
	d.log.Log(context.Background(), d.newsLevel(m.Role), "a member has joined", "member", m.Name, "role", m.Role.String(), "address", m.Address)
	d.set(m)
}

func (d delegate) NotifyUpdate(n *memberlist.Node) {
	m, err := memberOf(n)
	if n.Name == d.name || err != nil {
		return
	}
	d.set(m)
}

func (d delegate) NotifyLeave(n *memberlist.Node) {
	if n.Name == d.name {
		return
	}
	m, _ := d.Roster().Find(n.Name)
	d.log.Log(context.Background(), d.newsLevel(m.Role), "a member has left or does not answer", "member", n.Name, "address", n.Address())
	d.remove(n.Name)
}

// newsLevel is how loudly a member's coming and going is told. Of shards, the coordinator tells: each other shard would
// only repeat it.
func (c *Cluster) newsLevel(of plan.Role) slog.Level {
	if c.role == plan.Shard && of == plan.Shard {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// NotifyConflict hears of a second member of one name; the first one stays.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if existing.Name == d.name {
		d.conflict = time.Now()
	}
	d.tellLocked(existing.Name, "two members have one name: the later one is ignored while the other lives; give each its own", other, "stays", existing.Address())
}

// tellLocked logs what happens to a name once, until something else does.
func (c *Cluster) tellLocked(name, what string, n *memberlist.Node, more ...any) {
	address := n.Address()
	if c.told[name] == what+address {
		return
	}
	if len(c.told) >= maxMembers {
		clear(c.told)
	}
	c.told[name] = what + address
	c.log.Warn(what, append([]any{"member", name, "address", address}, more...)...)
}

func (d delegate) NotifyMsg([]byte) {}

func (d delegate) GetBroadcasts(int, int) [][]byte { return nil }

func (d delegate) LocalState(bool) []byte { return nil }

func (d delegate) MergeRemoteState([]byte, bool) {}

// memberOf reads a member out of what gossip brought.
func memberOf(n *memberlist.Node) (plan.Member, error) {
	ip, ok := netip.AddrFromSlice(n.Addr)
	if ip = ip.Unmap(); !ok || n.Port == 0 || ip.IsUnspecified() || ip.IsMulticast() {
		return plan.Member{}, errors.New("its address is none")
	}
	if err := checkName(n.Name); err != nil {
		return plan.Member{}, err
	}
	m, err := decodeMeta(n.Meta)
	if err != nil {
		return plan.Member{}, err
	}
	m.Name, m.Address = n.Name, netip.AddrPortFrom(ip, n.Port).String()
	return m, nil
}
