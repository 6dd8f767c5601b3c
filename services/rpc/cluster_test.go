package rpc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
	"github.com/daisy-llm/daisy/services/rpc"
	"github.com/daisy-llm/daisy/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// golden is one of the tiny random models that Hugging Face's implementation was run on.
type golden struct {
	Name    string
	Shape   struct{ H, L int }
	Prompts map[string]struct {
		TokenIDs  []token.ID `json:"token_ids"`
		GreedyIDs []token.ID `json:"greedy_ids"`
	}
	path string
}

func openGolden(t testing.TB, name string) *golden {
	t.Helper()
	dir := filepath.Join("..", "..", "model", "testdata", "golden", name)
	data, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	g := &golden{path: filepath.Join(dir, "model.gguf")}
	if err := json.Unmarshal(data, g); err != nil {
		t.Fatal(err)
	}
	return g
}

// worker is a shard served over gRPC on loopback.
type worker struct {
	name, address string
	shard         *shard.Shard
	kill          func() error // ends it; returns what Server.Run did
}

type workerOptions struct {
	protocol uint32
	grant    pass.Grant
	memory   int64
	open     func(context.Context, pass.Load) (*gguf.File, error)
	window   int32       // bytes of every connection's and stream's flow control; 0: gRPC's choice
	kernels  *kernel.Set // nil: the fastest
	threads  int         // 0: one
}

func (o workerOptions) dial() []grpc.DialOption {
	d := rpc.DialOptions(insecure.NewCredentials())
	if o.window > 0 {
		d = append(d, grpc.WithInitialWindowSize(o.window), grpc.WithInitialConnWindowSize(o.window))
	}
	return d
}

func (o workerOptions) server() []grpc.ServerOption {
	if o.window == 0 {
		return nil
	}
	return []grpc.ServerOption{grpc.InitialWindowSize(o.window), grpc.InitialConnWindowSize(o.window)}
}

func startWorker(t testing.TB, name, path string, o workerOptions) *worker {
	t.Helper()
	if o.protocol == 0 {
		o.protocol = pass.Protocol
	}
	if o.grant.Passes == 0 {
		o.grant = pass.Grant{Passes: 8, Bytes: 1 << 20}
	}
	if o.open == nil {
		o.open = func(context.Context, pass.Load) (*gguf.File, error) { return gguf.Open(path) }
	}
	if o.kernels == nil {
		o.kernels = kernel.Best()
	}
	log := slog.New(slog.DiscardHandler)
	rows := &pass.RowPool{}
	outlet := rpc.NewOutlet(rows, o.grant, log, o.dial()...)
	s, err := shard.New(shard.Config{
		Name: name, Kernels: o.kernels, Threads: max(1, o.threads), Memory: o.memory, Grant: o.grant,
		Open: o.open, Outlet: outlet, Rows: rows, Tracer: noop.NewTracerProvider().Tracer(""), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.ServerConfig{
		Description: pass.Description{Name: name, PID: os.Getpid(), Address: l.Addr().String(), Protocol: o.protocol, Numerics: pass.Numerics},
		Shard:       s, Outlet: outlet, Rows: rows, Credentials: insecure.NewCredentials(), Options: o.server(), Log: log,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	go func() { ended <- s.Run(ctx) }()
	go func() { ended <- outlet.Run(ctx) }()
	served := make(chan error, 1)
	go func() { served <- server.Run(ctx, l) }()
	w := &worker{name: name, address: l.Addr().String(), shard: s}
	var dead atomic.Bool
	w.kill = func() error {
		if dead.Swap(true) {
			return nil
		}
		cancel()
		err := <-served
		<-ended
		<-ended
		return err
	}
	t.Cleanup(func() { w.kill() })
	return w
}

// dial brings a hop to a worker to life.
func dial(t testing.TB, w *worker, fault func(string, error)) *rpc.Hop {
	t.Helper()
	return dialAs(t, "test", w, workerOptions{}, fault)
}

func dialAs(t testing.TB, coordinator string, w *worker, o workerOptions, fault func(string, error)) *rpc.Hop {
	t.Helper()
	h := rpc.NewHop(rpc.HopConfig{
		Coordinator: coordinator, Shard: w.name, Address: w.address, Dial: o.dial(), Rows: &pass.RowPool{}, Fault: fault,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); h.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case <-h.Ready():
	case <-h.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the hop does not come to life")
	}
	return h
}

// port gives a hop its port, which runs until the test ends.
func port(t testing.TB, h *rpc.Hop) *pipeline.Port {
	p := pipeline.NewPort(h)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return p
}

// line is a pipeline of workers that have loaded a model.
type line struct {
	*pipeline.Pipeline
	ended   <-chan struct{} // closed when the pipeline's Run has ended
	workers []*worker
	hops    []*rpc.Hop
	ports   []*pipeline.Port // of the hops
	vocab   int
	turn    map[pass.SequenceID]uint32
	epoch   pass.Epoch
}

var planID = pass.PlanID{Number: 1, Leader: "test"}

// startLine cuts a model evenly into so many stages.
func startLine(t testing.TB, path string, stages int, cache kvcache.Type, o workerOptions) *line {
	t.Helper()
	return startCut(t, path, func(layers int) (cuts []int) {
		for i := range stages + 1 {
			cuts = append(cuts, layers*i/stages)
		}
		return cuts
	}, cache, o)
}

// startCut cuts a model of so many layers where cut says: a stage between each two of its values.
func startCut(t testing.TB, path string, cut func(layers int) []int, cache kvcache.Type, o workerOptions) *line {
	t.Helper()
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cfg, err := model.ReadConfig(f)
	if err != nil {
		t.Fatal(err)
	}
	l := &line{vocab: cfg.Vocab, turn: map[pass.SequenceID]uint32{}, epoch: 1}
	pc := pipeline.Config{Coordinator: "test", Plan: planID, Hidden: cfg.Hidden, Passes: new(atomic.Uint64)}
	var made atomic.Pointer[pipeline.Pipeline]
	cuts := cut(cfg.Layers)
	stages := len(cuts) - 1
	for i := range stages {
		w := startWorker(t, fmt.Sprintf("s%d", i), path, o)
		h := dial(t, w, func(peer string, err error) {
			if p := made.Load(); p != nil {
				p.Break(fmt.Errorf("%s: %w", peer, err))
			}
		})
		layers := model.Layers{First: model.LayerIndex(cuts[i]), Last: model.LayerIndex(cuts[i+1])}
		err := h.Load(t.Context(), pass.Load{
			Plan: planID, Layers: layers, First: i == 0, Last: i == stages-1, Model: "golden",
			Context: min(cfg.Context, 256), Parallel: 4, CacheType: cache,
		}, func(pass.LoadProgress) {})
		if err != nil {
			t.Fatal(err)
		}
		l.workers, l.hops, l.ports = append(l.workers, w), append(l.hops, h), append(l.ports, port(t, h))
		pc.Ports = append(pc.Ports, l.ports[i])
		pc.Stages = append(pc.Stages, pass.Stage{Shard: w.name, Address: w.address, Layers: layers})
	}
	if l.Pipeline, err = pipeline.New(pc); err != nil {
		t.Fatal(err)
	}
	made.Store(l.Pipeline)
	l.ended = run(t, l.Pipeline)
	return l
}

// run runs a pipeline until it breaks or the test ends.
func run(t testing.TB, p *pipeline.Pipeline) (ended <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan struct{})
	go func() { defer close(end); p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-end })
	return end
}

func (l *line) begin(t testing.TB, id pass.SequenceID, prompt int) {
	t.Helper()
	if _, err := l.Begin(t.Context(), pass.Begin{Sequence: id, Epoch: 1, Prompt: prompt}); err != nil {
		t.Fatal(err)
	}
	l.turn[id] = 0
}

// run takes a sequence on by some tokens and returns what came of it.
func (l *line) run(t testing.TB, id pass.SequenceID, first token.Position, tokens []token.ID, wants pass.Wants) pass.Output {
	t.Helper()
	e := pass.Entry{Sequence: id, Epoch: l.epoch, Turn: l.turn[id], First: first, Count: len(tokens), Tokens: tokens, Wants: wants}
	l.turn[id]++
	ticket, err := l.Send(t.Context(), pipeline.Trace{}, []pass.Entry{e})
	if err != nil {
		t.Fatal(err)
	}
	r, err := ticket.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r.Outputs[0]
}
