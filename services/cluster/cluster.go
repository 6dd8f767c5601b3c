package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

// A Cluster is this process's view of all members.
type Cluster struct {
	port   *Port
	seeds  []*seed
	label  string
	key    []byte
	timing Timing
	log    *slog.Logger
	self   netip.AddrPort
	name   string
	role   plan.Role
	dirty  chan struct{} // capacity 1: what this process says of itself has changed

	mu       sync.Mutex
	members  map[string]plan.Member // by name, this process included
	roster   plan.Roster            // of members
	watchers map[chan plan.Roster]struct{}
	conflict time.Time         // when another member was last heard of under our name
	told     map[string]string // what was last logged about a name
}

// New checks a configuration and makes a Cluster that consists of this process alone, until Run.
func New(config Config) (*Cluster, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	self, err := advertised(config.Advertise, config.Port.bound())
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if err := config.reachable(self); err != nil {
		return nil, err
	}
	c := &Cluster{
		port:     config.Port,
		label:    config.Label,
		key:      config.SecretKey,
		timing:   config.Timing.withDefaults(),
		log:      config.Log,
		self:     self,
		name:     config.Self.Name,
		role:     config.Self.Role,
		dirty:    make(chan struct{}, 1),
		members:  make(map[string]plan.Member),
		watchers: make(map[chan plan.Roster]struct{}),
		told:     make(map[string]string),
	}
	if c.label == "" {
		c.label = "daisy"
	}
	for _, address := range config.Join {
		c.seeds = append(c.seeds, &seed{address: address})
	}
	member := config.Self
	member.Address = self.String()
	c.set(member)
	return c, nil
}

// Address is the host:port at which others find this process.
func (c *Cluster) Address() string { return c.self.String() }

// Run is a member of the cluster until ctx ends, then leaves it and closes the port; all of it within Timing.Leave and
// a little more. It returns nil then, and an error if it could not begin or the port was closed before. It may be
// called once.
//
// memberlist does not wait for its own goroutines. Run cuts every connection and timer they could hang on, so that
// they end by themselves, the last when a probe that was on its way times out.
func (c *Cluster) Run(ctx context.Context) error {
	served := make(chan struct{})
	go func() {
		defer close(served)
		c.port.serve()
	}()
	defer func() {
		_ = c.port.Close()
		<-served
	}()
	c.port.gossip.advertise = c.self
	list, err := memberlist.Create(c.memberlist())
	if err != nil {
		_ = c.port.gossip.Shutdown()
		return fmt.Errorf("cluster: %w", err)
	}
	defer list.Shutdown()
	defer context.AfterFunc(ctx, c.port.gossip.hangUp)() // a seed that does not answer must not hold up the end
	g, loops := errgroup.WithContext(ctx)
	g.Go(func() error { return c.monitorSeeds(loops, list) })
	g.Go(func() error { return c.announceChanges(loops, list) })
	g.Go(func() error {
		select {
		case <-served:
			return errors.New("cluster: the port was closed")
		case <-loops.Done():
			return nil
		}
	})
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	if err := list.Leave(c.timing.Leave); err != nil {
		c.log.Debug("the others may learn late that this process has left", "error", err)
	}
	return nil
}

// memberlist is the configuration of the library.
func (c *Cluster) memberlist() *memberlist.Config {
	conf := memberlist.DefaultLANConfig()
	conf.Name = c.name
	conf.Transport = c.port.gossip
	conf.Label = c.label
	conf.SecretKey = c.key
	conf.Delegate = delegate{c}
	conf.Events = delegate{c}
	conf.Alive = delegate{c}
	conf.Conflict = delegate{c}
	conf.Logger = c.libraryLog()
	conf.BindPort = int(c.self.Port()) // only a default for peers that say none
	conf.AdvertisePort = conf.BindPort

	conf.ProbeInterval = c.timing.Probe
	conf.ProbeTimeout = c.timing.Probe / 2 // then over TCP, and through others, for the rest of the interval
	conf.SuspicionMult = max(2, int((c.timing.Suspicion+c.timing.Probe-1)/c.timing.Probe))
	conf.SuspicionMaxTimeoutMult = 1 // the same patience, however many others confirm
	conf.AwarenessMaxMultiplier = 4
	conf.TCPTimeout = 5 * time.Second
	conf.GossipInterval = c.timing.Gossip
	conf.PushPullInterval = 15 * time.Second
	conf.DeadNodeReclaimTime = time.Nanosecond // a process that was restarted elsewhere may have its name back at once
	conf.EnableCompression = false             // there is little to gain on a few hundred bytes
	return conf
}

// announceChanges tells the others when what this process says of itself has changed.
func (c *Cluster) announceChanges(ctx context.Context, list *memberlist.Memberlist) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.dirty:
			// The message is queued at once; waiting until it has gone out would only hold up the next one.
			_ = list.UpdateNode(time.Nanosecond)
		}
	}
}

// SetState tells the others how far this process has come.
func (c *Cluster) SetState(s plan.State) error {
	return c.Update(func(m *plan.Member) { m.State = s })
}

// SetPlan tells the others which plan this process holds a block of.
func (c *Cluster) SetPlan(number uint64) error {
	return c.Update(func(m *plan.Member) { m.Plan = number })
}

// Update changes what this process says of itself, except for name, address and role, which stay.
func (c *Cluster) Update(change func(*plan.Member)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.members[c.name]
	after := before
	change(&after)
	after.Name, after.Address, after.Role = before.Name, before.Address, before.Role
	if err := checkMember(after); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if after == before {
		return nil
	}
	c.setLocked(after)
	select {
	case c.dirty <- struct{}{}:
	default: // a change is to be announced already; this one goes with it
	}
	return nil
}

// Roster is the newest snapshot.
func (c *Cluster) Roster() plan.Roster {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roster
}

// Watch gives the newest snapshot, and again whenever it changes; a reader that is slow misses those in between, never
// the last. The channel is closed when ctx ends.
func (c *Cluster) Watch(ctx context.Context) <-chan plan.Roster {
	w := make(chan plan.Roster, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	w <- c.roster
	c.watchers[w] = struct{}{}
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watchers, w)
		close(w)
	})
	return w
}

func (c *Cluster) set(m plan.Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setLocked(m)
}

func (c *Cluster) setLocked(m plan.Member) {
	c.members[m.Name] = m
	c.publishLocked()
}

func (c *Cluster) remove(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.members, name)
	delete(c.told, name)
	c.publishLocked()
}

// publishLocked gives every watcher the new snapshot, in place of one it has not read yet.
func (c *Cluster) publishLocked() {
	c.roster = plan.NewRoster(slices.Collect(maps.Values(c.members))...)
	for w := range c.watchers {
		select {
		case <-w:
		default:
		}
		w <- c.roster // there is room: only this function sends, and it holds the lock
	}
}
