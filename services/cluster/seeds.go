package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// A seed is a member that this one hears of the others from.
type seed struct {
	address string
	due     time.Time // of the next attempt
	joined  bool
	failure string // what was last logged
}

// monitorSeeds reaches for the seeds until they answer, and then exchanges all that is known with them from time to
// time: a seed that was restarted, and knows nobody, is found again so.
func (c *Cluster) monitorSeeds(ctx context.Context, list *memberlist.Memberlist) error {
	if len(c.seeds) == 0 {
		return nil
	}
	tick := time.NewTicker(c.timing.Retry)
	defer tick.Stop()
	for {
		for _, s := range c.seeds {
			if ctx.Err() == nil && (c.lost() || !time.Now().Before(s.due)) {
				c.reach(ctx, list, s)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// lost says whether the others are to be told at once that this process is there: it sees nobody, or they know another
// one by its name, for as long as that one lives.
func (c *Cluster) lost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.members) == 1 || time.Since(c.conflict) < 3*c.timing.Retry
}

// reach exchanges with a seed all that either knows, and logs when the outcome is another than before.
func (c *Cluster) reach(ctx context.Context, list *memberlist.Memberlist, s *seed) {
	err := c.exchange(ctx, list, s.address)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		if !s.joined {
			c.log.Info("joined the cluster", "seed", s.address, "members", len(c.Roster()))
		}
		s.joined, s.failure, s.due = true, "", time.Now().Add(c.timing.Refresh)
		return
	}
	if why := err.Error(); s.joined || why != s.failure {
		what := "cannot join the cluster yet; trying again"
		if s.joined {
			what = "the seed has gone; trying again"
		}
		c.log.Warn(what, "seed", s.address, "every", c.timing.Retry, "error", why)
		s.failure = why
	}
	s.joined, s.due = false, time.Now().Add(c.timing.Retry)
}

// exchange tries every address of a seed until one answers.
func (c *Cluster) exchange(ctx context.Context, list *memberlist.Memberlist, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return err
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return err
	}
	for _, ip := range ips {
		at := netip.AddrPortFrom(ip.Unmap(), uint16(number))
		if at == c.self {
			return nil // a list of seeds that is the same for all names us too
		}
		if _, err = list.Join([]string{at.String()}); err == nil {
			return nil
		}
	}
	return explain(err)
}

// explain says what a failed exchange means; memberlist gives its errors as text only.
func explain(err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	switch {
	case strings.Contains(text, "connection refused"):
		return fmt.Errorf("nobody listens there (yet)")
	case strings.HasSuffix(text, "EOF"), strings.Contains(text, "connection reset"):
		return fmt.Errorf("it closed the connection: it may belong to a cluster of another name or key")
	case strings.HasSuffix(text, "i/o timeout"):
		return fmt.Errorf("it does not answer as a member does: it should be the address of a coordinator or shard")
	}
	_, reason, found := strings.Cut(text, "failed to join ") // all before is a list's heading
	if !found {
		reason = text
	}
	return fmt.Errorf("%s", reason)
}
