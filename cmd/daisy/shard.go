package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel"
	"golang.org/x/sync/errgroup"

	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/pass"
	"github.com/daisy-llm/daisy/services/catalogue"
	"github.com/daisy-llm/daisy/services/cluster"
	"github.com/daisy-llm/daisy/services/rpc"
	"github.com/daisy-llm/daisy/services/weights"
	"github.com/daisy-llm/daisy/shard"
)

// shardOptions are the flags of a shard process.
type shardOptions struct {
	Join       []string
	Listen     string
	Advertise  string
	Model      string // a file, a catalogue name or a source; "": whatever the coordinator asks for, if it is here
	Name       string
	Threads    int    // 0: all cores
	Memory     string // "": what the machine has to offer
	Kernels    string
	Trust      trustOptions
	ParentPipe bool // standard input is a pipe that its parent holds: end with it
	env        environment
}

// shardGrant is the credit of every coordinator: enough passes to fill a long pipeline, and the rows of several prompts'
// chunks at widths of the largest models.
var shardGrant = pass.Grant{Passes: 128, Bytes: 256 << 20}

func newShardCommand(c *cli) *cobra.Command {
	o := shardOptions{}
	cmd := &cobra.Command{
		Use:   "shard --join HOST:PORT",
		Short: "Run a shard: a worker that holds a block of the model's layers",
		Long: `Run a shard. It joins the cluster of the coordinator at HOST:PORT, which may start later, offers its memory,
loads the block that the coordinator plans for it, and computes. It takes the model's file from --model, from the
cache, or from where the coordinator has it, whichever has the right hash. Where there is no such file it fetches the
bytes of its block from other shards and from the coordinator, and keeps them below --cache-dir.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.env = c.env
			store, err := c.store()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if o.ParentPipe {
				var end context.CancelCauseFunc
				ctx, end = context.WithCancelCause(ctx)
				endWithParent(os.Stdin, shardGrace, func() { end(nil) })
			}
			err = runShard(ctx, o, store, c.log, func(address string) { c.log.Info("listening", "address", address) })
			if o.ParentPipe && ctx.Err() != nil && errors.Is(err, context.Canceled) {
				return nil // the parent asked for the end
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.Join, "join", nil, "`HOST:PORT` of the coordinator, or of any member; several may be given")
	f.StringVar(&o.Listen, "listen", "127.0.0.1:0", "`HOST:PORT` to serve on; port 0 is any free one")
	f.StringVar(&o.Advertise, "advertise", "", "`HOST[:PORT]` at which others reach this shard (default: the address it listens on)")
	f.StringVarP(&o.Model, "model", "m", "", "the model's file, a `NAME` of the catalogue, or a source (default: what the coordinator serves)")
	f.StringVar(&o.Name, "name", "", "name in the cluster, unique (default: the machine's name and the process id)")
	f.IntVarP(&o.Threads, "threads", "t", 0, "threads that compute (default: all cores)")
	f.StringVar(&o.Memory, "memory", "", "memory on offer, such as 8GiB (default: what is available)")
	f.StringVar(&o.Kernels, "kernels", c.env.kernels, "kernels to use, see daisy version (default: the fastest this CPU can run)")
	o.Trust.bind(cmd, c.env)
	f.BoolVar(&o.ParentPipe, "parent-pipe", false, "end when standard input does")
	f.MarkHidden("parent-pipe")
	cmd.MarkFlagRequired("join")
	return cmd
}

// runShard serves until ctx ends, or until it turns out that the cluster has no use for this shard.
func runShard(ctx context.Context, o shardOptions, store *catalogue.Store, log *slog.Logger, listening func(address string)) (err error) {
	if err := checkListen(o.Listen); err != nil {
		return err
	}
	if len(o.Join) == 0 { // as of --join ""
		return errors.New("--join is empty: name the HOST:PORT of the coordinator")
	}
	kernels, err := selectKernels(o.Kernels)
	if err != nil {
		return err
	}
	threads := o.Threads
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	memory, err := memoryFor(o.Memory, 1)
	if err != nil {
		return err
	}
	if !o.ParentPipe { // the parent has said it
		o.Trust.warn(o.Listen, log)
	}
	var members *cluster.Cluster
	guard, err := protectShard(ctx, o, func() []string { return coordinatorsOf(members.Roster()) }, log)
	if err != nil {
		return err
	}
	defer guard.close()
	name := o.Name
	switch {
	case guard.secure():
		name = guard.identity.Name()
	case name == "":
		name = processName("shard")
	}
	log = log.With("shard", name)
	library := &library{store: store, log: log}
	library.cache, err = weights.NewCache(weights.CacheConfig{
		Dir: store.Dir(), Owner: name, Log: log,
		Peers: func() []weights.Peer { return peersOf(members.Roster(), name) },
		Dial: func(p weights.Peer) (weights.Remote, error) {
			return rpc.NewPeer(p.Name, p.Address, rpc.DialOptions(guard.credentials()))
		},
	})
	if err != nil {
		return err
	}
	defer library.cache.Close()
	if o.Model != "" {
		if library.given, err = store.Resolve(ctx, o.Model, logProgress{log}); err != nil {
			return err
		}
	}
	stopTelemetry, err := startTelemetry(ctx, o.env, "daisy-shard", name, log)
	if err != nil {
		return err
	}
	defer stopTelemetry()
	speed := 0.0
	if !o.ParentPipe { // beside its siblings on one machine, a shard measures nothing but the noise they make
		speed = cluster.MeasureBandwidth(threads, memory)
	}

	port, err := cluster.Listen(o.Listen)
	if err != nil {
		return err
	}
	defer port.Close()
	rows := &pass.RowPool{}
	outlet := rpc.NewOutlet(rows, shardGrant, log, rpc.DialOptions(guard.credentials())...)
	worker, err := shard.New(shard.Config{
		Name: name, Kernels: kernels, Threads: threads, Memory: memory, Room: cluster.MemoryRoom, Grant: shardGrant,
		Open: library.open, Fetch: library.cache.Fetch, Keep: library.cache.Keep, Outlet: outlet, Rows: rows, Tracer: otel.Tracer("daisy/shard"), Log: log,
	})
	if err != nil {
		return err
	}
	self := plan.Member{
		Name: name, Role: plan.Shard, PID: os.Getpid(), Cores: threads, Memory: memory, Speed: speed,
		Protocol: pass.Protocol, Numerics: pass.Numerics, Version: shortVersion(),
	}
	gossip := cluster.Config{Self: self, Port: port, Advertise: o.Advertise, Join: o.Join, SecretKey: guard.gossipKey(), Log: log}
	gossip.Timing.Refresh = time.Second // a coordinator that was restarted is found again so soon
	if o.ParentPipe {                   // it ends with the coordinator and all its siblings: nobody is left to be told
		gossip.Timing.Leave = time.Nanosecond
	}
	members, err = cluster.New(gossip)
	if err != nil {
		return err
	}
	server := rpc.NewServer(rpc.ServerConfig{
		Description: pass.Description{
			Name: name, PID: os.Getpid(), Address: members.Address(), Version: buildVersion(),
			Protocol: pass.Protocol, Numerics: pass.Numerics, Kernels: kernels.Name, Cores: threads, Memory: memory,
		},
		Shard: worker, Outlet: outlet, Rows: rows, Credentials: guard.credentials(), Caller: guard.caller(), Log: log,
		Weights: library.cache, Offered: library.cache.Offer,
		Loaded: func(blocks []shard.Held) {
			members.Update(func(m *plan.Member) {
				m.State, m.Plan = plan.Joining, 0
				for _, b := range blocks {
					m.State, m.Plan = plan.Ready, max(m.Plan, b.Load.Plan.Number)
				}
			})
		},
	})
	listening(members.Address())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return worker.Run(ctx) })
	g.Go(func() error { return outlet.Run(ctx) })
	g.Go(func() error { return server.Run(ctx, port.Listener()) })
	g.Go(func() error { return members.Run(ctx) })
	g.Go(func() error { return guard.run(ctx) })
	return g.Wait()
}

// logProgress reports what a store does to the log.
type logProgress struct{ log *slog.Logger }

func (p logProgress) Note(text string)   { p.log.Info(text) }
func (p logProgress) Bytes(int64, int64) {}

// processName is a name that no other process has at the time.
func processName(role string) string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = role
	}
	if len(host) > 32 {
		host = host[:32]
	}
	return host + "-" + strconv.Itoa(os.Getpid())
}

// checkListen refuses what is no address.
func checkListen(listen string) error {
	if _, port, err := net.SplitHostPort(listen); err != nil || !isPort(port) {
		return fmt.Errorf("--listen %q is not HOST:PORT: write it like 127.0.0.1:8080, or 127.0.0.1:0 for any free port", listen)
	}
	return nil
}

// isPort says whether text is the number of a port, 0 included.
func isPort(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}
