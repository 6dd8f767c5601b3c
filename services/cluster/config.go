package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

// Config is what a Cluster is made of.
type Config struct {
	// Self is what this process says of itself at first. Its Address is found from Port and Advertise.
	Self plan.Member
	// Port carries the gossip. Run closes it at its end.
	Port *Port
	// Advertise is the host or host:port at which others find this process. "": where Port is bound, or one of the
	// machine's own addresses if that is all of them.
	Advertise string
	// Join names seeds, host:port: members to hear of the others from, tried until they are there, and again when they
	// were gone. The first member of a cluster has none.
	Join []string
	// Label is the name of the cluster; members under another are refused. "": "daisy".
	Label string
	// SecretKey encrypts the gossip: 16, 24 or 32 bytes, the same for all; nil: plain.
	SecretKey []byte
	// Timing may be zero.
	Timing Timing
	// Log hears of members that come and go, and of seeds, once a change.
	Log *slog.Logger
}

// Timing says how patient a Cluster is; a zero field has its default. A dead member is gone from the roster after about
// 2 probes and the suspicion: 4 seconds with the defaults, up to 10 members; a live one must be silent for as long
// before it is wrongly given up, which a loaded machine does not make it.
type Timing struct {
	Probe     time.Duration // between probes of other members: 500 ms
	Suspicion time.Duration // that a member has to answer after a failed probe, at least 2 probes: 3 s
	Gossip    time.Duration // between messages about changes: 100 ms
	Retry     time.Duration // between attempts to reach a seed that does not answer: 1 s
	Refresh   time.Duration // between full exchanges with a seed that does; what gossip lost is found again: 5 s
	Leave     time.Duration // for the word that this process leaves to go out, three rounds of gossip: 300 ms
}

func (t Timing) withDefaults() Timing {
	or := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
	}
	or(&t.Probe, 500*time.Millisecond)
	or(&t.Suspicion, 3*time.Second)
	or(&t.Gossip, 100*time.Millisecond)
	or(&t.Retry, time.Second)
	or(&t.Refresh, 5*time.Second)
	or(&t.Leave, 3*t.Gossip)
	return t
}

const maxSeeds = 64

// Validate says what is wrong with a configuration, and what to do.
func (c *Config) Validate() error {
	if c.Port == nil || c.Log == nil {
		return errors.New("cluster: a port and a log are needed")
	}
	if err := checkName(c.Self.Name); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if err := checkMember(c.Self); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if len(c.Label) > maxName {
		return fmt.Errorf("cluster: label %q is longer than %d bytes", clip(c.Label), maxName)
	}
	switch len(c.SecretKey) {
	case 0, 16, 24, 32:
	default:
		return fmt.Errorf("cluster: a key of %d bytes: give 16, 24 or 32", len(c.SecretKey))
	}
	if len(c.Join) > maxSeeds {
		return fmt.Errorf("cluster: %d seeds, more than %d", len(c.Join), maxSeeds)
	}
	for _, seed := range c.Join {
		if host, _, err := net.SplitHostPort(seed); err != nil || host == "" {
			return fmt.Errorf("cluster: cannot join through %q: give host:port", seed)
		}
	}
	return nil
}

// reachable refuses what can only half work: others would hear of an address that leads back to themselves.
func (c *Config) reachable(self netip.AddrPort) error {
	if !self.Addr().IsLoopback() {
		return nil
	}
	for _, seed := range c.Join {
		if a, err := netip.ParseAddrPort(seed); err == nil && !a.Addr().Unmap().IsLoopback() {
			return fmt.Errorf("cluster: a process that listens on %s cannot join through %s: listen on an address that others can reach", self, seed)
		}
	}
	return nil
}
