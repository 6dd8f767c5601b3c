package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel"
	"golang.org/x/sync/errgroup"

	"github.com/daisy-llm/daisy/coordinator"
	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/tokenizer"
	"github.com/daisy-llm/daisy/model/tokenizer/template"
	"github.com/daisy-llm/daisy/pass"
	"github.com/daisy-llm/daisy/services/catalogue"
	"github.com/daisy-llm/daisy/services/cluster"
	"github.com/daisy-llm/daisy/services/gateway"
	"github.com/daisy-llm/daisy/services/rpc"
	"github.com/daisy-llm/daisy/services/telemetry"
	"github.com/daisy-llm/daisy/services/weights"
)

// coordinatorOptions are the flags of a coordinator process.
type coordinatorOptions struct {
	Model     string
	Listen    string
	Advertise string
	Join      []string
	Name      string
	Shards    int // that the first plan waits for; 0: one, and those that come soon after it
	Context   int // 0: the default
	CacheType string
	Parallel  int
	Recovery  time.Duration // for which generations wait for a pipeline in place of one that was lost
	Trust     trustOptions
	Quiet     bool // nothing but warnings is of interest
	Brief     bool // nobody is to be told when it ends
	env       environment
}

// defaultRecovery gives a machine that has crashed time to start again, and is less than most clients wait for a token.
const defaultRecovery = time.Minute

const recoveryUsage = "how long answers wait for other shards when those that are left cannot hold the model"

// maxWaiting is how many requests may wait for a place; a client that is refused knows at least where it stands.
const maxWaiting = 256

func newCoordinatorCommand(c *cli) *cobra.Command {
	o := coordinatorOptions{}
	cmd := &cobra.Command{
		Use:   "coordinator --model NAME|FILE",
		Short: "Run a coordinator: it plans, serves the API, and drives the shards that join it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.env = c.env
			store, err := c.store()
			if err != nil {
				return err
			}
			if _, err := c.resolve(cmd.Context(), store, o.Model); err != nil {
				return err
			}
			return runCoordinator(cmd.Context(), o, store, c.log, func(address string, guard protection) error {
				text, err := joinText(address, guard, o.Trust.TokenTTL)
				if err == nil {
					_, err = fmt.Fprint(c.out, text)
				}
				return err
			}, func(s coordinator.Status) {
				stages := 0
				for _, shard := range s.Shards {
					if shard.Stage >= 0 { // no spare
						stages++
					}
				}
				fmt.Fprintf(c.out, "Ready: %s on %d shards\n", s.Model, stages)
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.Model, "model", "m", defaultModel(), "a `NAME` of the catalogue (see daisy models), a file, or a source such as hf:org/repo@revision/file.gguf")
	f.StringVar(&o.Listen, "listen", "127.0.0.1:8080", "`HOST:PORT` for the API, for shards and for other members; port 0 is any free one")
	f.StringVar(&o.Advertise, "advertise", "", "`HOST[:PORT]` at which shards reach this coordinator (default: the address it listens on)")
	f.StringSliceVar(&o.Join, "join", nil, "`HOST:PORT` of a member of a running cluster; several may be given")
	f.StringVar(&o.Name, "name", "", "name in the cluster, unique (default: the machine's name and the process id)")
	f.IntVarP(&o.Shards, "shards", "n", 0, "shards that the first plan waits for (default: one, and those that come soon after it)")
	f.IntVarP(&o.Context, "context", "c", 0, contextUsage)
	f.IntVar(&o.Parallel, "parallel", defaultParallel, "sequences that are cached at once")
	f.StringVar(&o.CacheType, "cache-type", "f16", "how keys and values are kept: f16 or f32")
	f.DurationVar(&o.Recovery, "recovery-timeout", defaultRecovery, recoveryUsage)
	o.Trust.bind(cmd, c.env)
	f.DurationVar(&o.Trust.TokenTTL, "token-ttl", defaultTokenTTL, "how long the token that is printed lets shards join; 0 makes none: see daisy token")
	f.DurationVar(&o.Trust.CertificateTTL, "certificate-ttl", 24*time.Hour, "how long certificates are valid; they are renewed at two thirds of it")
	return cmd
}

// runCoordinator serves until ctx ends. It calls listening once the port is open, and ready once a plan is loaded.
func runCoordinator(ctx context.Context, o coordinatorOptions, store *catalogue.Store, log *slog.Logger, listening func(address string, guard protection) error, ready func(coordinator.Status)) (err error) {
	if err := checkListen(o.Listen); err != nil {
		return err
	}
	o.Trust.warn(o.Listen, log)
	local, err := store.Resolve(ctx, o.Model, logProgress{log})
	if err != nil {
		return err
	}
	cache, err := kvcache.Parse(o.CacheType)
	if err != nil {
		return fmt.Errorf("--cache-type: %w", err)
	}
	cfg, shape, err := measureModel(local.Name, local.Path, shapeOptions{Context: o.Context, Parallel: o.Parallel, CacheType: o.CacheType})
	if err != nil {
		return err
	}
	text, err := openText(local)
	if err != nil {
		return err
	}
	defer text.file.Close()

	origin, err := weights.OpenOrigin(weights.OriginConfig{
		Path: local.Path, SHA256: local.SHA256, Header: text.file.Header(), Dir: store.Dir(), Log: log,
	})
	if err != nil {
		return err
	}
	defer origin.Close()

	base := o.Name
	if base == "" {
		base = processName("coordinator")
	}
	var members *cluster.Cluster
	guard, err := protectCoordinator(ctx, o, base, func() []string { return coordinatorsOf(members.Roster()) }, log)
	if err != nil {
		return err
	}
	defer guard.close()
	name := base + "-" + randomSuffix() // new in every life, so that shards never take it for its former self
	stopTelemetry, err := startTelemetry(ctx, o.env, "daisy-coordinator", name, log)
	if err != nil {
		return err
	}
	defer stopTelemetry()
	port, err := cluster.Listen(o.Listen)
	if err != nil {
		return err
	}
	defer port.Close()
	gossip := cluster.Config{
		Self: plan.Member{
			Name: name, Role: plan.Coordinator, PID: os.Getpid(), State: plan.Joining,
			Protocol: pass.Protocol, Numerics: pass.Numerics, Version: shortVersion(),
		},
		Port: port, Advertise: o.Advertise, Join: o.Join, SecretKey: guard.gossipKey(), Log: log,
	}
	if o.Brief {
		gossip.Timing.Leave = time.Nanosecond
	}
	members, err = cluster.New(gossip)
	if err != nil {
		return err
	}
	rows := &pass.RowPool{}
	dial := rpc.DialOptions(guard.credentials())
	engine, err := coordinator.New(coordinator.Config{
		Name: name, Version: buildVersion(), Model: cfg, Shape: shape,
		Load: pass.Load{
			Model: local.Name, SHA256: local.SHA256, Path: local.Path, Bytes: local.Size,
			Context: shape.Context, Parallel: shape.Parallel, CacheType: cache,
		},
		Tokenizer: text.tokenizer, Shards: o.Shards, MaxWaiting: maxWaiting, RecoveryTimeout: o.Recovery,
		Dial: func(m plan.Member, fault func(string, error)) coordinator.Link {
			return rpc.NewHop(rpc.HopConfig{
				Coordinator: name, Version: buildVersion(), Shard: m.Name, Address: m.Address, Dial: dial, Rows: rows, Weights: origin, Fault: fault,
			})
		},
		Planned: func(number uint64, state plan.State) {
			members.Update(func(m *plan.Member) { m.Plan, m.State = number, state })
		},
		Tracer: otel.Tracer("daisy/coordinator"), Log: log,
	})
	if err != nil {
		return err
	}
	api, err := gateway.New(gateway.Config{
		Engine: engine, Tokenizer: text.tokenizer, Template: text.template,
		ModelName: local.Name, Context: shape.Context, Created: time.Now(), Logger: log,
	})
	if err != nil {
		return err
	}

	listener, handler := guard.serve(port.Listener(), api.Handler())
	if err := listening(members.Address(), guard); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return members.Run(ctx) })
	g.Go(func() error { return engine.Run(ctx, members.Watch(ctx)) })
	g.Go(func() error { return serveHTTP(ctx, listener, handler, log) })
	g.Go(func() error { return guard.run(ctx) })
	g.Go(func() error { return tellReady(ctx, engine, ready) })
	return g.Wait()
}

// modelText is the part of a model that the coordinator needs: how text becomes tokens. Weights stay on the disk.
type modelText struct {
	file      *gguf.File
	tokenizer *tokenizer.Tokenizer
	template  gateway.Template // nil: the model has none
}

func openText(local catalogue.Local) (_ *modelText, err error) {
	file, err := gguf.Open(local.Path)
	if err != nil {
		return nil, fmt.Errorf("open the model %s: %w", local.Name, err)
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	t := &modelText{file: file}
	if t.tokenizer, err = tokenizer.New(file); err != nil {
		return nil, fmt.Errorf("read the tokenizer of %s: %w", local.Name, err)
	}
	switch parsed, err := template.New(file); {
	case err == nil:
		t.template = parsed
	case !errors.Is(err, template.ErrNone): // without a template, completions still work
		return nil, fmt.Errorf("read the chat template of %s: %w", local.Name, err)
	}
	return t, nil
}

// shutdownGrace is how long answers that are under way may take to end themselves once the coordinator ends.
const shutdownGrace = time.Second

// errStopping is why answers end that are under way when the coordinator does.
var errStopping = errors.New("the coordinator is shutting down")

// serveHTTP serves the API until ctx ends. Requests end with errStopping then, which tells them from those whose client
// has gone.
func serveHTTP(ctx context.Context, l net.Listener, handler http.Handler, log *slog.Logger) error {
	requests, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stop(errStopping)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		server.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}

// tellReady calls ready each time a plan has been loaded.
func tellReady(ctx context.Context, c *coordinator.Coordinator, ready func(coordinator.Status)) error {
	told := ""
	for {
		changed := c.Changed()
		if s := c.Status(); s.State == coordinator.StateReady && s.Plan != told {
			told = s.Plan
			ready(s)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// startTelemetry exports traces if the environment asks for it. What it returns sends what is left.
func startTelemetry(ctx context.Context, env environment, service, instance string, log *slog.Logger) (stop func(), err error) {
	cfg, err := telemetry.FromEnv(env.lookup)
	if err != nil {
		return nil, err
	}
	cfg.ServiceName, cfg.ServiceVersion, cfg.InstanceID, cfg.Log = service, buildVersion(), instance, log
	shutdown, err := telemetry.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return func() {
		if err := shutdown(context.WithoutCancel(ctx)); err != nil {
			log.Warn("the last traces were not exported", "error", err)
		}
	}, nil
}

func randomSuffix() string {
	b := make([]byte, 4)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// shortVersion is the version as gossip carries it.
func shortVersion() string {
	v, _, _ := strings.Cut(buildVersion(), " ")
	return v[:min(len(v), 32)]
}
