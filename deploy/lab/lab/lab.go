//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/daisy-llm/daisy/deploy/lab/cgroup"
	"github.com/daisy-llm/daisy/deploy/lab/wire"
)

// DefaultDir is where labs write down what they make, for the next one to find.
const DefaultDir = "/run/daisy-lab"

// Config says what lab to make.
type Config struct {
	Machines []MachineConfig
	Seed     uint64 // decides which packets faults strike
	Dir      string // where labs know each other by; empty means DefaultDir
	Disk     string // where machines have their folders; empty means the folder for temporary files
}

// MachineConfig says what one machine is like. Zero means as much as there is.
type MachineConfig struct {
	Name   string        // of letters, digits, - and _
	Memory int64         // bytes
	CPU    float64       // cores
	Period time.Duration // in which the share of the CPU is used up, see cgroup.Limits
	Rate   int64         // bits a second, each way
}

// maxMachines is what the network of a lab has addresses for.
const maxMachines = 250

// leastRate is one at which a packet does not take seconds.
const leastRate = 10_000

// Validate says what no lab can be.
func (c Config) Validate() error {
	if len(c.Machines) == 0 || len(c.Machines) > maxMachines {
		return fmt.Errorf("a lab of %d machines: it may have 1 to %d", len(c.Machines), maxMachines)
	}
	names := map[string]bool{}
	for _, m := range c.Machines {
		valid := func(r rune) bool {
			return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
		}
		if m.Name == "" || len(m.Name) > 32 || strings.IndexFunc(m.Name, func(r rune) bool { return !valid(r) }) >= 0 {
			return fmt.Errorf("a machine named %q: use 1 to 32 letters, digits, - and _", m.Name)
		}
		if names[m.Name] {
			return fmt.Errorf("two machines named %q", m.Name)
		}
		names[m.Name] = true
		if m.Rate != 0 && m.Rate < leastRate {
			return fmt.Errorf("machine %s: a rate of %d bits a second: give at least %d, or 0 for any", m.Name, m.Rate, leastRate)
		}
		if err := m.limits().Validate(); err != nil {
			return fmt.Errorf("machine %s: %w", m.Name, err)
		}
	}
	return nil
}

func (m MachineConfig) limits() cgroup.Limits {
	return cgroup.Limits{Memory: m.Memory, CPU: m.CPU, Period: m.Period}
}

// Lab is a set of machines and the wire between them.
type Lab struct {
	ID       string
	Dir      string // what belongs to this lab alone; its owner may keep files there
	Machines []*Machine

	record *record
	wire   *wire.Wire
	cut    context.CancelFunc
	ended  chan struct{} // closed once the wire has ended
	failed error         // of the wire, once it has ended
}

// Up makes a lab, after removing those whose process is gone.
func Up(config Config) (*Lab, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab needs root: it makes network namespaces and cgroups")
	}
	tree, err := cgroup.Find()
	if err != nil {
		return nil, err
	}
	l := &Lab{ended: make(chan struct{})}
	if l.record, err = open(config, tree); err != nil {
		return nil, err
	}
	l.ID, l.Dir = l.record.ID, l.record.dir
	if err := l.build(config, tree); err != nil {
		return nil, errors.Join(fmt.Errorf("make a lab: %w", err), l.Down())
	}
	return l, nil
}

func (l *Lab) build(config Config, tree *cgroup.Tree) error {
	var ports []wire.Port
	for i, mc := range config.Machines {
		m, err := l.plug(mc, netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}), tree)
		if err != nil {
			return fmt.Errorf("machine %s: %w", mc.Name, err)
		}
		m.index = i
		ports = append(ports, wire.Port{Addr: m.Addr, Device: m.device, Rate: mc.Rate})
	}
	var err error
	if l.wire, err = wire.New(config.Seed, ports...); err != nil {
		return err
	}
	if err := l.record.describe(l.Machines); err != nil {
		return err
	}
	ctx, cut := context.WithCancel(context.Background())
	l.cut = cut
	go func() {
		defer close(l.ended)
		l.failed = l.wire.Run(ctx)
	}()
	return nil
}

// Down kills every process in the lab and removes all that Up made. A second call does nothing.
func (l *Lab) Down() error {
	if l.record == nil {
		return nil
	}
	failed := []error{cgroup.Remove(l.record.Cgroups)}
	for _, m := range l.Machines {
		m.waiting.Wait()
	}
	if l.cut != nil {
		l.cut()
		<-l.ended
		failed = append(failed, l.failed)
	}
	for _, m := range l.Machines {
		failed = append(failed, m.close())
	}
	failed = append(failed, l.record.remove())
	l.record = nil
	return errors.Join(failed...)
}

// Machine finds a machine by its name, or returns nil.
func (l *Lab) Machine(name string) *Machine {
	at := slices.IndexFunc(l.Machines, func(m *Machine) bool { return m.Name == name })
	if at < 0 {
		return nil
	}
	return l.Machines[at]
}

// Change changes links in both directions between the machines of two sets; nil stands for all. Nothing has changed if it returns an error.
func (l *Lab) Change(from, to []*Machine, change func(*wire.Link)) error {
	if from == nil {
		from = l.Machines
	}
	if to == nil {
		to = l.Machines
	}
	for _, a := range from {
		for _, b := range to {
			tried := l.wire.Link(a.index, b.index)
			change(&tried)
			if err := tried.Validate(); err != nil {
				return err
			}
		}
	}
	for _, a := range l.Machines {
		for _, b := range l.Machines {
			if a != b && (slices.Contains(from, a) && slices.Contains(to, b) || slices.Contains(from, b) && slices.Contains(to, a)) {
				if err := l.wire.Change(a.index, b.index, change); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Partition cuts the links between machines of different groups. Machines in no group reach everyone; with one group, the others are another.
// What was cut before stays cut.
func (l *Lab) Partition(groups ...[]*Machine) {
	if len(groups) == 1 {
		var others []*Machine
		for _, m := range l.Machines {
			if !slices.Contains(groups[0], m) {
				others = append(others, m)
			}
		}
		groups = append(groups, others)
	}
	for i, group := range groups {
		for _, other := range groups[i+1:] {
			for _, a := range group {
				for _, b := range other {
					l.Change([]*Machine{a}, []*Machine{b}, func(link *wire.Link) { link.Cut = true })
				}
			}
		}
	}
}

// Heal mends what Partition cut.
func (l *Lab) Heal() {
	l.Change(nil, nil, func(link *wire.Link) { link.Cut = false })
}

// Link is the link from one machine to another.
func (l *Lab) Link(from, to *Machine) wire.Link { return l.wire.Link(from.index, to.index) }

// Received is what has come to a machine over the wire, and what was lost on the way.
func (l *Lab) Received(m *Machine) wire.Count { return l.wire.Count(m.index) }

// Ended is closed when the wire has ended: by Down, or before it because a device failed, which Down reports.
func (l *Lab) Ended() <-chan struct{} { return l.ended }

// folder is a machine's own on disk.
func (r *record) folder(machine string) string { return filepath.Join(r.Disk, machine) }
