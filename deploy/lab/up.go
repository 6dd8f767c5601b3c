//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/daisy-llm/daisy/deploy/lab/lab"
	"github.com/daisy-llm/daisy/deploy/lab/wire"
)

// labFlags are what every lab is made from.
type labFlags struct {
	machineFlags
	delay time.Duration
	seed  uint64
	disk  string
}

func (f *labFlags) bind(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.memory, "memory", "0", "memory of a machine, file cache included, such as 1GiB; a list is one per machine, the last for the rest; 0 is no limit")
	flags.StringVar(&f.cpu, "cpu", "0", "cores of a machine, such as 0.4, or a list")
	flags.StringVar(&f.rate, "rate", "0", "rate of a machine's link, each way, such as 1gbit, or a list")
	flags.DurationVar(&f.period, "period", 0, "time in which a machine's share of the CPU is used up (default 2ms, or the shortest that the kernel takes)")
	flags.DurationVar(&f.delay, "delay", 0, "time that a packet takes from machine to machine")
	flags.Uint64Var(&f.seed, "seed", 1, "decides which packets faults strike")
	flags.StringVar(&f.disk, "disk", "", "folder in which machines keep files (default: that for temporary files)")
}

// with makes a lab of these machines, calls run, and removes it.
func (f *labFlags) with(ctx context.Context, out io.Writer, names []string, run func(context.Context, *session) error) (err error) {
	machines, err := f.configs(names)
	if err != nil {
		return err
	}
	if err := (wire.Link{Delay: f.delay}).Validate(); err != nil {
		return fmt.Errorf("--delay: %w", err)
	}
	l, err := lab.Up(lab.Config{Machines: machines, Seed: f.seed, Disk: f.disk})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Down()) }()
	if err := l.Change(nil, nil, func(link *wire.Link) { link.Delay = f.delay }); err != nil {
		return err
	}
	listener, err := listen(l.ID)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	ctx, end := context.WithCancel(ctx)
	defer end()
	s := &session{lab: l, out: &shared{out: out}, end: end}
	defer s.out.hush() // at the end all are killed, which need not be said
	group.Go(func() error { return s.serve(ctx, listener) })
	group.Go(func() error {
		defer end()
		return run(ctx, s)
	})
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-l.Ended():
			return errors.New("the wire between the machines has broken")
		}
	})
	return group.Wait()
}

func newUpCommand() *cobra.Command {
	var f labFlags
	var count int
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Make machines with nothing in them, until Ctrl-C; lab exec runs something there",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 1 {
				return fmt.Errorf("--machines %d: at least one", count)
			}
			var names []string
			for i := range count {
				names = append(names, fmt.Sprint("m", i))
			}
			return f.with(cmd.Context(), cmd.OutOrStdout(), names, func(ctx context.Context, s *session) error {
				text, err := s.status()
				if err != nil {
					return err
				}
				fmt.Fprintf(s.out, "%s\nlab exec m0 COMMAND runs a command there; lab --help says what else. Ctrl-C removes all.\n", text)
				<-ctx.Done()
				return nil
			})
		},
	}
	cmd.Flags().IntVarP(&count, "machines", "n", 2, "how many")
	f.bind(cmd)
	return cmd
}

// shared lets several goroutines write whole lines.
type shared struct {
	mu  sync.Mutex
	out io.Writer
}

func (s *shared) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(text)
}

// hush drops what is written from now on.
func (s *shared) hush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = io.Discard
}
