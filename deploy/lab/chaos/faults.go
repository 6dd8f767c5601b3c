//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/daisy-llm/daisy/deploy/lab/cluster"
	"github.com/daisy-llm/daisy/deploy/lab/lab"
)

// kinds are the faults that there are.
var kinds = [...]string{"kill", "stop", "partition", "drain", "join"}

// fault is one thing that happens to a shard's machine, and for how long.
type fault struct {
	kind   string
	shard  int           // counted from 0
	before time.Duration // that all is well
	lasts  time.Duration // until it is made good; a machine that joined leaves again
}

func (f fault) String() string {
	return fmt.Sprintf("after %v: %s shard%d, for %v", f.before, f.kind, f.shard+1, f.lasts)
}

// draw draws the next fault. The same generator gives the same faults, whatever becomes of them. Spare machines join; the others suffer.
func draw(random *rand.Rand, of []string, shards, spare int) fault {
	f := fault{kind: of[random.IntN(len(of))], shard: random.IntN(shards)}
	if f.kind == "join" {
		f.shard = shards + random.IntN(max(spare, 1))
	}
	f.before = time.Duration(1000+random.IntN(4000)) * time.Millisecond
	f.lasts = time.Duration(500+random.IntN(5000)) * time.Millisecond
	return f
}

// parseKinds reads a list of faults.
func parseKinds(list string, spare int) ([]string, error) {
	var of []string
	for kind := range strings.SplitSeq(list, ",") {
		if !slices.Contains(kinds[:], kind) {
			return nil, fmt.Errorf("--faults %s: %q is none of %s", list, kind, strings.Join(kinds[:], ","))
		}
		if kind == "join" && spare == 0 {
			return nil, errors.New("--faults join: it takes --spare machines")
		}
		of = append(of, kind)
	}
	return of, nil
}

// strike makes a fault happen.
func (f fault) strike(l *lab.Lab, c *cluster.Cluster) error {
	m := l.Machines[1+f.shard]
	switch f.kind {
	case "kill":
		return m.Signal(syscall.SIGKILL)
	case "stop":
		return m.Signal(syscall.SIGSTOP)
	case "partition":
		l.Partition([]*lab.Machine{m})
		return nil
	case "drain":
		return m.Signal(syscall.SIGTERM)
	default:
		return c.Start(m)
	}
}

// drainTime is how long a shard may take to hand over what it has.
const drainTime = time.Minute

// mend makes it good again: it leaves the machine as it was before the fault.
func (f fault) mend(l *lab.Lab, c *cluster.Cluster) error {
	m := l.Machines[1+f.shard]
	switch f.kind {
	case "stop":
		if err := m.Signal(syscall.SIGCONT); err != nil {
			return err
		}
	case "partition":
		l.Heal()
	case "join":
		if err := m.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		return gone(c, m)
	case "drain":
		if err := gone(c, m); err != nil {
			return err
		}
	}
	// A shard that was given up meanwhile may have ended by itself, and one that was killed surely has.
	select {
	case <-c.Process(m).Done:
		return c.Start(m)
	default:
		return nil
	}
}

func gone(c *cluster.Cluster, m *lab.Machine) error {
	select {
	case <-c.Process(m).Done:
		return nil
	case <-time.After(drainTime):
		return fmt.Errorf("%s is still there %v after SIGTERM", m.Name, drainTime)
	}
}
