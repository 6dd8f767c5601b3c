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

	"github.com/daisy-llm/daisy/coordinator"
	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/services/catalogue"
	"github.com/daisy-llm/daisy/services/cluster"
)

// How long things may take to end, before they are ended.
const (
	coordinatorGrace = 3 * time.Second
	shardGrace       = 2 * time.Second
)

const maxLocalShards = 64

// localOptions are the flags that `run` and `up` share.
type localOptions struct {
	Model     string
	Listen    string
	Shards    int
	Threads   int    // of each shard; 0: the machine's cores divided by the shards, at least one
	Memory    string // of each shard; "": what the machine has to offer, divided by the shards
	Context   int
	Parallel  int
	CacheType string
	Kernels   string
	Recovery  time.Duration
	Insecure  bool
	Quiet     bool // the shards' log lines are kept for errors, not shown
	Brief     bool // it lives for one purpose: no other process is meant to join it, or to be told when it ends
}

func (o *localOptions) bind(cmd *cobra.Command, env environment, listen string) {
	f := cmd.Flags()
	f.StringVarP(&o.Model, "model", "m", defaultModel(), "a `NAME` of the catalogue (see daisy models), a file, or a source such as hf:org/repo@revision/file.gguf")
	f.StringVar(&o.Listen, "listen", listen, "`HOST:PORT` that the API listens on; port 0 is any free one")
	f.IntVarP(&o.Shards, "shards", "n", 3, "shard processes to start")
	f.IntVarP(&o.Threads, "threads", "t", 0, "threads of each shard (default: the cores divided by the shards, at least 1)")
	f.StringVar(&o.Memory, "memory", "", "memory of each shard, such as 8GiB (default: what is available, divided by the shards)")
	f.IntVarP(&o.Context, "context", "c", 0, contextUsage)
	f.IntVar(&o.Parallel, "parallel", defaultParallel, "sequences that are cached at once")
	f.StringVar(&o.CacheType, "cache-type", "f16", "how keys and values are kept: f16 or f32")
	f.StringVar(&o.Kernels, "kernels", env.kernels, "kernels to use, see daisy version (default: the fastest this CPU can run)")
	f.DurationVar(&o.Recovery, "recovery-timeout", defaultRecovery, recoveryUsage)
	f.BoolVar(&o.Insecure, "insecure", false, "listen beyond loopback, without encryption")
}

func (o *localOptions) validate() error {
	if o.Shards < 1 || o.Shards > maxLocalShards {
		return fmt.Errorf("--shards %d: use 1 to %d", o.Shards, maxLocalShards)
	}
	if o.Threads < 0 {
		return fmt.Errorf("--threads %d: use 1 or more, or 0 for the cores divided by the shards", o.Threads)
	}
	if o.Context < 0 {
		return fmt.Errorf("--context %d: use 1 or more, or 0 for the model's own", o.Context)
	}
	if o.Parallel < 1 || o.Parallel > maxParallel {
		return fmt.Errorf("--parallel %d: use 1 to %d", o.Parallel, maxParallel)
	}
	if _, err := kvcache.Parse(o.CacheType); err != nil {
		return fmt.Errorf("--cache-type: %w", err)
	}
	if _, err := selectKernels(o.Kernels); err != nil {
		return err
	}
	if err := checkListen(o.Listen); err != nil {
		return err
	}
	if !o.Insecure && !cluster.IsLoopback(o.Listen) {
		return fmt.Errorf("listening on %s would open the cluster to other machines without encryption: use a loopback address, daisy coordinator and daisy shard, or --insecure on a network that you trust", o.Listen)
	}
	_, err := o.memoryOfShard()
	return err
}

// localCluster is a coordinator in this process and shards beside it.
type localCluster struct {
	address  string // of the API
	api      *client
	children []*child
	exited   chan *child // every child that ended, once

	stopCoordinator  context.CancelFunc
	coordinatorEnded chan struct{} // closed once it has
}

// withCluster starts a cluster, calls use once a plan is loaded, and ends all of it when use returns. The context that
// use gets ends early, with the reason as its cause, when the coordinator fails or ctx ends.
func (c *cli) withCluster(ctx context.Context, o localOptions, use func(context.Context, *localCluster, coordinator.Status) error) error {
	if err := o.validate(); err != nil {
		return err
	}
	store, err := c.store()
	if err != nil {
		return err
	}
	file, err := c.resolve(ctx, store, o.Model)
	if err != nil {
		return err
	}
	if err := o.rehearse(file); err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	listening := make(chan string, 1)
	ready := make(chan coordinator.Status, 1)
	cluster := &localCluster{exited: make(chan *child, o.Shards), coordinatorEnded: make(chan struct{})}
	// The coordinator ends first, by hand: it still talks to the shards when it ends.
	coordinatorContext, stop := context.WithCancel(context.WithoutCancel(ctx))
	cluster.stopCoordinator = stop
	go func() {
		defer close(cluster.coordinatorEnded)
		err := runCoordinator(coordinatorContext, o.coordinator(c.env), store, c.log, func(address string, _ protection) error { listening <- address; return nil }, func(s coordinator.Status) {
			select {
			case ready <- s:
			default: // a later plan
			}
		})
		if err == nil {
			err = errors.New("the coordinator ended")
		}
		fail(err)
	}()
	defer cluster.end(c.log)

	select {
	case cluster.address = <-listening:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if cluster.api, err = newClient("http://"+dialable(cluster.address), clientTrust{}); err != nil {
		return err
	}
	defer cluster.api.close()
	if err := cluster.startShards(c, o, file.Path); err != nil {
		return err
	}
	status, err := cluster.waitReady(ctx, c, o.Shards, ready)
	if err != nil {
		return err
	}
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching() // before the shards are made to end
	go cluster.watch(watching, c.log)
	err = use(ctx, cluster, status)
	if cause := context.Cause(ctx); cause != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return cause
	}
	return err
}

func (o *localOptions) coordinator(env environment) coordinatorOptions {
	return coordinatorOptions{
		Model: o.Model, Listen: o.Listen, Shards: o.Shards, Context: o.Context, CacheType: o.CacheType, Parallel: o.Parallel,
		Recovery: o.Recovery, Trust: trustOptions{Insecure: o.Insecure}, Quiet: o.Quiet, Brief: o.Brief, env: env,
	}
}

// threadsOfShard and memoryOfShard are what each shard gets.
func (o *localOptions) threadsOfShard() int {
	if o.Threads > 0 {
		return o.Threads
	}
	return max(1, runtime.GOMAXPROCS(0)/o.Shards)
}

func (o *localOptions) memoryOfShard() (int64, error) { return memoryFor(o.Memory, o.Shards) }

// rehearse finds out whether the model fits on the shards, before there are any.
func (o *localOptions) rehearse(file catalogue.Local) error {
	_, shape, err := measureModel(file.Name, file.Path, shapeOptions{
		Context: o.Context, Parallel: o.Parallel, CacheType: o.CacheType, Threads: o.threadsOfShard(),
	})
	if err != nil {
		return err
	}
	memory, err := o.memoryOfShard()
	if err != nil {
		return err
	}
	var members []plan.Member
	for i := range o.Shards {
		members = append(members, plan.Member{Name: shardName(i), Role: plan.Shard, Memory: memory})
	}
	_, err = plan.Solve(plan.NewRoster(members...), shape, nil, plan.Options{})
	return advise(err)
}

func (l *localCluster) startShards(c *cli, o localOptions, model string) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start shards: %w", err)
	}
	memory, err := o.memoryOfShard()
	if err != nil {
		return err
	}
	// Shards must be where the coordinator can be reached from: on loopback, unless it was told to listen beyond.
	host, _, err := net.SplitHostPort(dialable(l.address))
	if err != nil {
		return fmt.Errorf("start shards: %w", err)
	}
	for i := range o.Shards {
		name := shardName(i)
		args := []string{
			"shard", "--join", dialable(l.address), "--listen", net.JoinHostPort(host, "0"), "--model", model, "--name", name,
			"--threads", strconv.Itoa(o.threadsOfShard()), "--memory", strconv.FormatInt(memory, 10), "--parent-pipe",
			"--log-level", c.logLevel, "--log-format", c.logFormat,
		}
		if o.Insecure {
			args = append(args, "--insecure")
		}
		if o.Kernels != "" {
			args = append(args, "--kernels", o.Kernels)
		}
		output := &lineLog{}
		if c.logFormat == "text" {
			output.prefix = "[" + name + "] "
		}
		if !o.Quiet {
			output.to = c.console
		}
		child, err := startChild(name, program, args, output)
		if err != nil {
			return err
		}
		l.children = append(l.children, child)
		go func() {
			<-child.done
			l.exited <- child
		}()
	}
	return nil
}

// shardName is what the shards of a cluster on one machine are called.
func shardName(i int) string { return fmt.Sprintf("a%d", i+1) }

// waitReady returns once a plan is loaded, or with the reason why none ever will be.
func (l *localCluster) waitReady(ctx context.Context, c *cli, shards int, ready <-chan coordinator.Status) (coordinator.Status, error) {
	display := showLoading(c.console, "starting "+count(shards, "shard"))
	follow, stop := context.WithCancel(ctx)
	followed := make(chan error, 1)
	go func() { followed <- display.follow(follow, l.api, shards) }()
	var status coordinator.Status
	var failed *child
	var err error
	select {
	case status = <-ready:
		stop()
		<-followed
	case failed = <-l.exited:
		err = failed.failure()
		stop()
		<-followed
	case err = <-followed:
		stop()
	}
	display.end()
	if failed != nil {
		failed.output.show(c.console)
	}
	return status, err
}

// watch logs the shards that end while the cluster serves. What that means for it is the coordinator's to decide.
func (l *localCluster) watch(ctx context.Context, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case child := <-l.exited:
			if ctx.Err() == nil {
				log.Error("a shard ended", "shard", child.name, "pid", child.pid, "error", child.failure())
			}
		}
	}
}

// end ends the coordinator, then the shards, each within its grace; no shard is left when it returns.
func (l *localCluster) end(log *slog.Logger) {
	l.stopCoordinator()
	timer := time.NewTimer(coordinatorGrace)
	defer timer.Stop()
	select {
	case <-l.coordinatorEnded:
	case <-timer.C:
		log.Warn("the coordinator does not end; going on without it")
	}
	endChildren(l.children, shardGrace)
}

// dialable is where a listener on this machine is reached: one that listens everywhere is reached over loopback.
func dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	switch ip := net.ParseIP(host); {
	case host == "", ip != nil && ip.IsUnspecified():
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}
