//go:build linux

package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/daisy-llm/daisy/deploy/lab/cluster"
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
	flags.BoolVar(&f.insecure, "insecure", false, "run Daisy without encryption, and without a join token")
	flags.StringArrayVar(&f.coordinatorFlags, "coordinator-flag", nil, "one more argument for daisy coordinator; may be repeated")
	flags.StringArrayVar(&f.shardFlags, "shard-flag", nil, "one more argument for daisy shard; may be repeated")
	f.bind(cmd)
	return cmd
}

func (f *runFlags) run(ctx context.Context, out io.Writer) error {
	if f.shards < 1 || f.spare < 0 {
		return fmt.Errorf("--shards %d --spare %d: at least one shard, and no less than nothing", f.shards, f.spare)
	}
	// Before anything is made, so that an address that is taken is said at once.
	host, err := net.Listen("tcp", f.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	defer host.Close()
	return f.with(ctx, out, cluster.Names(f.shards+f.spare), func(ctx context.Context, s *session) error {
		if err := f.prepare(ctx, s); err != nil {
			return err
		}
		if err := s.cluster.StartAll(ctx); err != nil {
			return err
		}
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return forward(ctx, host, s.cluster) })
		group.Go(func() error {
			if err := s.cluster.Ready(ctx); ctx.Err() != nil {
				return nil // ended before it was
			} else if err != nil {
				return err
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
	if f.daisy == "" {
		fmt.Fprintln(s.out, "building daisy")
	}
	binary, err := cluster.Binary(ctx, f.daisy, s.lab.Machines[0].Disk, s.out)
	if err != nil {
		return err
	}
	model, err := cluster.Model(ctx, f.model, binary, s.out)
	if err != nil {
		return err
	}
	var threads []int
	for i := range s.lab.Machines {
		share, err := nth(f.cpu, i, coresOf)
		if err != nil {
			return err
		}
		threads = append(threads, cmp.Or(f.threads, int(math.Ceil(share))))
	}
	s.cluster, err = cluster.New(s.lab, cluster.Config{
		Binary: binary, Model: model, Shards: f.shards, Threads: threads, Private: f.private, Insecure: f.insecure,
		CoordinatorFlags: f.coordinatorFlags, ShardFlags: f.shardFlags, Out: s.out,
	})
	return err
}

// forward carries connections from this machine to the coordinator's API until the context ends. Here they are plain, as anything is on loopback; on the
// lab's wire they are as the cluster's own.
func forward(ctx context.Context, host net.Listener, c *cluster.Cluster) error {
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
			carry(ctx, conn.(*net.TCPConn), c)
			return nil // a client's broken connection is the client's
		})
	}
}

// duplex is a connection of which one direction can end before the other.
type duplex interface {
	net.Conn
	CloseWrite() error
}

func carry(ctx context.Context, client *net.TCPConn, c *cluster.Cluster) {
	defer client.Close()
	dialled, err := c.Dial(ctx)
	if err != nil {
		return
	}
	server := dialled.(duplex)
	defer server.Close()
	defer context.AfterFunc(ctx, func() { client.Close(); server.Close() })()
	var group errgroup.Group
	for _, way := range [][2]duplex{{client, server}, {server, client}} {
		group.Go(func() error {
			_, err := io.Copy(way[1], way[0])
			if err != nil { // broken, not ended: neither side must take it for an end
				reset(client)
				reset(server)
				return err
			}
			return way[1].CloseWrite()
		})
	}
	group.Wait()
}

func reset(conn net.Conn) {
	below := conn
	if secured, ok := conn.(*tls.Conn); ok {
		below = secured.NetConn()
	}
	below.(*net.TCPConn).SetLinger(0)
	below.Close()
}
