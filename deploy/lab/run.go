//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/daisy-llm/daisy/deploy/lab/lab"
)

// runFlags say what cluster runs in the lab.
type runFlags struct {
	labFlags
	daisy            string
	model            string
	shards, threads  int
	spare            int
	listen           string
	private          bool
	insecure         bool
	coordinatorFlags []string
	shardFlags       []string
}

// Everything in the lab listens on its machine's address.
const (
	coordinatorName = "coordinator"
	coordinatorPort = "8080"
	shardPort       = "8081"
)

func newRunCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a Daisy cluster, a machine for each process, until Ctrl-C",
		Long: `Run a Daisy cluster, a machine for each process, until Ctrl-C: the machine "coordinator" (0), and "shard1" (1) and so on.

The API is reachable from here at the address of --listen, as if the client sat at the coordinator's machine. Memory, CPU and rate
of a list begin with the coordinator: --memory 0,230MB limits the shards alone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.daisy, "daisy", "", "the binary (default: build it from ./cmd/daisy)")
	flags.StringVarP(&f.model, "model", "m", "smollm2", "a file, or whatever daisy pull understands")
	flags.IntVarP(&f.shards, "shards", "n", 3, "how many")
	flags.IntVar(&f.spare, "spare", 0, "machines more, which start nothing until lab start")
	flags.IntVarP(&f.threads, "threads", "t", 0, "threads of a shard (default: the cores it has, rounded up)")
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8080", "where the API is reachable from this machine; port 0 is any free one")
	flags.BoolVar(&f.private, "private", false, "give each shard's machine a copy of the model's file, so that its file cache counts as its memory")
	flags.BoolVar(&f.insecure, "insecure", true, "run Daisy without encryption")
	flags.StringArrayVar(&f.coordinatorFlags, "coordinator-flag", nil, "one more argument for daisy coordinator; may be repeated")
	flags.StringArrayVar(&f.shardFlags, "shard-flag", nil, "one more argument for daisy shard; may be repeated")
	f.bind(cmd)
	return cmd
}

func (f *runFlags) run(ctx context.Context, out io.Writer) error {
	if f.shards < 1 || f.spare < 0 {
		return fmt.Errorf("--shards %d --spare %d: at least one shard, and no less than nothing", f.shards, f.spare)
	}
	names := []string{coordinatorName}
	for i := range f.shards + f.spare {
		names = append(names, fmt.Sprint("shard", i+1))
	}
	// Before anything is made, so that an address that is taken is said at once.
	host, err := net.Listen("tcp", f.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	defer host.Close()
	return f.with(ctx, out, names, func(ctx context.Context, s *session) error {
		if err := f.prepare(ctx, s); err != nil {
			return err
		}
		for _, m := range s.lab.Machines[:1+f.shards] {
			if err := s.start(m); err != nil {
				return err
			}
		}
		coordinator := s.lab.Machine(coordinatorName)
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return forward(ctx, host, coordinator) })
		group.Go(func() error {
			if err := ready(ctx, coordinator); err != nil {
				return nil // ended before it was
			}
			fmt.Fprintf(s.out, `
Daisy is ready in lab %[1]s: http://%[2]s/v1

  curl http://%[2]s/v1/completions -d '{"prompt": "A daisy is", "max_tokens": 400, "stream": true}'
  lab status
  lab kill shard1          and lab start shard1
  lab stop shard1          and lab cont shard1
  lab partition shard1     and lab heal
  lab delay 20ms

Ctrl-C removes all.
`, s.lab.ID, host.Addr())
			return nil
		})
		return group.Wait()
	})
}

// prepare says what each machine is to run.
func (f *runFlags) prepare(ctx context.Context, s *session) error {
	coordinator := s.lab.Machine(coordinatorName)
	binary, err := f.binary(ctx, s, coordinator)
	if err != nil {
		return err
	}
	model, err := f.file(ctx, s, binary)
	if err != nil {
		return err
	}
	var open []string
	if f.insecure {
		open = []string{"--insecure"}
	}
	at := net.JoinHostPort(coordinator.Addr.String(), coordinatorPort)
	args := []string{"coordinator", "--model", model, "--listen", at, "--name", coordinatorName, "--shards", strconv.Itoa(f.shards)}
	s.programs[coordinatorName] = &program{path: binary, args: append(append(args, open...), f.coordinatorFlags...)}
	for i, m := range s.lab.Machines[1:] {
		file := model
		if f.private {
			if file, err = m.Copy(model); err != nil {
				return err
			}
		}
		args := []string{"shard", "--model", file, "--join", at, "--listen", net.JoinHostPort(m.Addr.String(), shardPort), "--name", m.Name}
		if threads := f.threadsOf(i + 1); threads > 0 {
			args = append(args, "--threads", strconv.Itoa(threads))
		}
		s.programs[m.Name] = &program{path: binary, args: append(append(args, open...), f.shardFlags...)}
	}
	return nil
}

func (f *runFlags) threadsOf(machine int) int {
	share, err := nth(f.cpu, machine, coresOf)
	if f.threads != 0 || err != nil {
		return f.threads
	}
	return int(math.Ceil(share))
}

// binary is the daisy that runs, in full.
func (f *runFlags) binary(ctx context.Context, s *session, m *lab.Machine) (string, error) {
	if f.daisy != "" {
		return filepath.Abs(f.daisy)
	}
	fmt.Fprintln(s.out, "building daisy")
	path := filepath.Join(m.Disk, "daisy")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/daisy-llm/daisy/cmd/daisy")
	build.Stdout, build.Stderr = s.out, s.out
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build daisy: %w: start the lab in Daisy's source, or say --daisy FILE", err)
	}
	return path, nil
}

// file is the model's. The machines have no way to the internet, so this one fetches it.
func (f *runFlags) file(ctx context.Context, s *session, binary string) (string, error) {
	if _, err := os.Stat(f.model); err == nil {
		return filepath.Abs(f.model)
	}
	pull := exec.CommandContext(ctx, binary, "pull", f.model)
	pull.Stderr = s.out
	printed, err := pull.Output()
	if err != nil {
		return "", fmt.Errorf("fetch the model %s: %w", f.model, err)
	}
	path, _, _ := strings.Cut(string(printed), "\n")
	return path, nil
}

// ready waits until the coordinator serves.
func ready(ctx context.Context, coordinator *lab.Machine) error {
	transport := &http.Transport{DialContext: coordinator.Dial}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(coordinator.Addr.String(), coordinatorPort)+"/readyz", nil)
		if err != nil {
			return err
		}
		if answer, err := client.Do(request); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// forward carries connections from this machine to the coordinator's until the context ends.
func forward(ctx context.Context, host net.Listener, coordinator *lab.Machine) error {
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { host.Close() })()
	for {
		conn, err := host.Accept()
		if ctx.Err() != nil {
			return group.Wait()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("serve the API: %w", err), group.Wait())
		}
		group.Go(func() error {
			carry(ctx, conn.(*net.TCPConn), coordinator)
			return nil // a client's broken connection is the client's
		})
	}
}

func carry(ctx context.Context, client *net.TCPConn, coordinator *lab.Machine) {
	defer client.Close()
	dialled, err := coordinator.Dial(ctx, "tcp", net.JoinHostPort(coordinator.Addr.String(), coordinatorPort))
	if err != nil {
		return
	}
	server := dialled.(*net.TCPConn)
	defer server.Close()
	defer context.AfterFunc(ctx, func() { client.Close(); server.Close() })()
	var group errgroup.Group
	for _, way := range [][2]*net.TCPConn{{client, server}, {server, client}} {
		group.Go(func() error {
			_, err := io.Copy(way[1], way[0])
			if err != nil { // broken, not ended: neither side must take it for an end
				client.SetLinger(0)
				server.SetLinger(0)
				client.Close()
				server.Close()
				return err
			}
			return way[1].CloseWrite()
		})
	}
	group.Wait()
}
