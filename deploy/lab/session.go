//go:build linux

package main

import (
	"fmt"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/daisy-llm/daisy/deploy/lab/cluster"
	"github.com/daisy-llm/daisy/deploy/lab/lab"
	"github.com/daisy-llm/daisy/deploy/lab/wire"
)

// session is a lab that runs, with what runs in it.
type session struct {
	lab     *lab.Lab
	cluster *cluster.Cluster // what runs there, if something does
	out     *shared
	end     func() // ends the session
}

// start starts what a machine is to run.
func (s *session) start(m *lab.Machine) error {
	if s.cluster == nil {
		return fmt.Errorf("machine %[1]s has nothing to start: use lab exec %[1]s COMMAND", m.Name)
	}
	return s.cluster.Start(m)
}

// machines finds those that a list names, by name or number.
func (s *session) machines(list string) (found []*lab.Machine, err error) {
	for name := range strings.SplitSeq(list, ",") {
		m := s.lab.Machine(name)
		for i, other := range s.lab.Machines {
			if name == fmt.Sprint(i) {
				m = other
			}
		}
		if m == nil {
			return nil, fmt.Errorf("there is no machine %q: lab status names them", name)
		}
		found = append(found, m)
	}
	return found, nil
}

// each calls f for the machines of several lists.
func (s *session) each(lists []string, f func(*lab.Machine) error) error {
	for _, list := range lists {
		machines, err := s.machines(list)
		if err != nil {
			return err
		}
		for _, m := range machines {
			if err := f(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// remote is a command that another process sends to the one with the lab.
type remote struct {
	use, short string
	least      int // arguments
	do         func(s *session, args []string) (string, error)
}

func remotes() []remote {
	onAll := func(signal syscall.Signal) func(*session, []string) (string, error) {
		return func(s *session, args []string) (string, error) {
			return "", s.each(args, func(m *lab.Machine) error { return m.Signal(signal) })
		}
	}
	faulty := func(set func(*wire.Link, float64)) func(*session, []string) (string, error) {
		return func(s *session, args []string) (string, error) {
			part, err := shareOf(args[0])
			if err != nil {
				return "", err
			}
			return "", s.change(args[1:], func(l *wire.Link) { set(l, part) })
		}
	}
	return []remote{
		{"status", "Show the machines: what they run and use, and how far they are", 0, func(s *session, _ []string) (string, error) { return s.status() }},
		{"kill MACHINE...", "kill -9 everything in machines: the neighbours see connections break", 1, onAll(syscall.SIGKILL)},
		{"stop MACHINE...", "kill -STOP everything in machines: the neighbours see nothing at all", 1, onAll(syscall.SIGSTOP)},
		{"cont MACHINE...", "kill -CONT everything in machines", 1, onAll(syscall.SIGCONT)},
		{"start MACHINE...", "Start again what was killed", 1, func(s *session, args []string) (string, error) { return "", s.each(args, s.start) }},
		{"partition A,B [C,D]...", "Cut the links between sets of machines; one set alone is cut from all others", 1, (*session).partition},
		{"heal", "Mend what partition has cut", 0, func(s *session, _ []string) (string, error) { s.lab.Heal(); return "", nil }},
		{"delay TIME [MACHINE...]", "Let packets take so long, one way, to and from these machines, or all", 1, func(s *session, args []string) (string, error) {
			delay, err := time.ParseDuration(args[0])
			if err != nil {
				return "", fmt.Errorf("%q is no time: use 20ms", args[0])
			}
			return "", s.change(args[1:], func(l *wire.Link) { l.Delay = delay })
		}},
		{"loss SHARE [MACHINE...]", "Lose this share of packets", 1, faulty(func(l *wire.Link, part float64) { l.Loss = part })},
		{"duplicate SHARE [MACHINE...]", "Deliver this share of packets twice", 1, faulty(func(l *wire.Link, part float64) { l.Duplicate = part })},
		{"reorder SHARE [MACHINE...]", "Let this share of packets be overtaken", 1, faulty(func(l *wire.Link, part float64) { l.Reorder = part })},
		{"down", "End the lab", 0, func(s *session, _ []string) (string, error) { s.end(); return "", nil }},
	}
}

// do does what another process asks for.
func (s *session) do(args []string) (string, error) {
	for _, r := range remotes() {
		name, _, _ := strings.Cut(r.use, " ")
		if len(args) > 0 && args[0] == name {
			if len(args)-1 < r.least {
				return "", fmt.Errorf("usage: lab %s", r.use)
			}
			return r.do(s, args[1:])
		}
	}
	return "", fmt.Errorf("this lab does not know %q", args)
}

func (s *session) change(lists []string, change func(*wire.Link)) error {
	if len(lists) == 0 {
		return s.lab.Change(nil, nil, change)
	}
	var some []*lab.Machine
	if err := s.each(lists, func(m *lab.Machine) error { some = append(some, m); return nil }); err != nil {
		return err
	}
	return s.lab.Change(some, nil, change)
}

func (s *session) partition(lists []string) (string, error) {
	var groups [][]*lab.Machine
	in := map[*lab.Machine]bool{}
	for _, list := range lists {
		group, err := s.machines(list)
		if err != nil {
			return "", err
		}
		for _, m := range group {
			if in[m] {
				return "", fmt.Errorf("machine %s is in two sets", m.Name)
			}
			in[m] = true
		}
		groups = append(groups, group)
	}
	s.lab.Partition(groups...)
	return "", nil
}

func (s *session) status() (string, error) {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MACHINE\tADDRESS\tPROCESSES\tMEMORY\tOF IT FILES\tPEAK\tKILLED\tCPU\tWAITED\tRECEIVED\tDROPPED\tDELAY\tCUT FROM")
	for _, m := range s.lab.Machines {
		pids, err := m.Processes()
		if err != nil {
			return "", err
		}
		u, err := m.Usage()
		if err != nil {
			return "", err
		}
		var delays, cut []string
		for _, other := range s.lab.Machines {
			if other == m {
				continue
			}
			link := s.lab.Link(m, other)
			if delay := link.Delay.String(); len(delays) == 0 || delays[len(delays)-1] != delay {
				delays = append(delays, delay)
			}
			if link.Cut {
				cut = append(cut, other.Name)
			}
		}
		size := func(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
		count := s.lab.Received(m)
		fmt.Fprintf(table, "%s\t%v\t%s\t%s\t%s\t%s\t%d\t%v\t%v\t%s\t%d\t%s\t%s\n", m.Name, m.Addr, strings.Trim(fmt.Sprint(pids), "[]"),
			size(u.Memory), size(u.Cache), size(u.Peak), u.Kills, u.CPU.Round(time.Millisecond), u.Throttled.Round(time.Millisecond),
			size(count.Bytes), count.Dropped, strings.Join(delays, ","), strings.Join(cut, ","))
	}
	err := table.Flush()
	return text.String(), err
}
