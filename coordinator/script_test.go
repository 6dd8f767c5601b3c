package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/model/tokenizer"
	"github.com/daisy-llm/daisy/pass"
)

// world is a world of shards without weights. By default the token after t is t + 1; next may say otherwise.
type world struct {
	t     *testing.T
	next  func(tokens []token.ID, state uint64) token.ID // state: a digest of all that the layers did
	delay atomic.Int64                                   // of a pass, at each stage: nanoseconds
	slow  time.Duration                                  // until a link is up
	read  time.Duration                                  // a layer's weights

	mu     sync.Mutex
	procs  map[string]*proc
	ever   []*proc          // also those that were killed and have a successor
	links  map[string]*link // by shard, the newest of any coordinator
	unfit  map[string]error // by shard: what its Load gives
	tasks  sync.WaitGroup
	events func(format string, args ...any) // what happens at shards, for those who write it down

	foreign string // a coordinator that is connected elsewhere
	refused atomic.Int64

	loading func(ctx context.Context, shard string, load pass.Load) error // of Loads with layers, if set
}

// link is a scripted Link.
type link struct {
	w           *world
	p           *proc
	coordinator string
	member      plan.Member
	ready       chan struct{}
	done        chan struct{}
	die         chan error // a value ends the link
	err         error
	results     chan *pass.Result
	fault       func(peer string, reason error) // as the coordinator wants to hear it
}

func (l *link) Run(ctx context.Context) error {
	defer close(l.done)
	if l.p.dead() {
		l.err = fmt.Errorf("shard %s: connection refused", l.member.Name)
		return l.err
	}
	select {
	case <-time.After(l.w.slow):
	case <-ctx.Done():
		l.err = ctx.Err()
		return l.err
	}
	if l.err = l.p.awake(ctx, l); l.err != nil {
		return l.err
	}
	l.p.connect(l)
	defer l.p.disconnect(l)
	close(l.ready)
	select {
	case l.err = <-l.die:
	case <-l.p.killed:
		l.err = fmt.Errorf("shard %s was killed", l.member.Name)
	case <-ctx.Done():
		l.err = ctx.Err()
	}
	return l.err
}

func (l *link) Ready() <-chan struct{} { return l.ready }
func (l *link) Shard() string          { return l.member.Name }
func (l *link) Done() <-chan struct{}  { return l.done }
func (l *link) Err() error             { return l.err }
func (l *link) Grant() pass.Grant      { return pass.Grant{Passes: 8, Bytes: 1 << 20} }

// command waits until the shard would hear it.
func (l *link) command(ctx context.Context) error {
	if err := l.p.awake(ctx, l); err != nil {
		return err
	}
	select {
	case <-l.done:
		return fmt.Errorf("%w: %w", pipeline.ErrBroken, l.err)
	case <-l.p.killed:
		<-l.done
		return fmt.Errorf("%w: %w", pipeline.ErrBroken, l.err)
	default:
		return nil
	}
}

func (l *link) Probe(ctx context.Context) (uint64, int, error) {
	if err := l.command(ctx); err != nil {
		return 0, 0, err
	}
	return l.p.progress()
}

func (l *link) Load(ctx context.Context, load pass.Load, progress func(pass.LoadProgress)) error {
	if err := l.command(ctx); err != nil {
		return err
	}
	l.w.mu.Lock()
	refuse := l.w.unfit[l.member.Name]
	l.w.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	var err error
	if l.w.loading != nil && load.Layers.Len() > 0 {
		err = l.w.loading(ctx, l.member.Name, load)
	}
	progress(pass.LoadProgress{Done: 1, Total: 1})
	if e := l.p.load(load, l.done); e != nil { // a shard that loads does not hear when nobody waits for it any more
		return e
	}
	return err
}

func (l *link) Unload(ctx context.Context, plan pass.PlanID) error {
	if err := l.command(ctx); err != nil {
		return err
	}
	if l.w.foreign != "" && plan.Leader == l.w.foreign {
		l.w.refused.Add(1)
		return errors.New("plan is in use")
	}
	l.p.unload(plan)
	return nil
}

func (l *link) Begin(ctx context.Context, b pass.Begin) (pass.Begun, error) {
	if err := l.command(ctx); err != nil {
		return pass.Begun{}, err
	}
	return l.p.begin(l.coordinator, b)
}

func (l *link) Release(ctx context.Context, id pass.SequenceID) error {
	if err := l.command(ctx); err != nil {
		return err
	}
	l.p.release(l.coordinator, id)
	return nil
}

func (l *link) Describe(ctx context.Context) (pass.Description, error) {
	if err := l.command(ctx); err != nil {
		return pass.Description{}, err
	}
	return l.p.describe(), nil
}

func (l *link) Send(p *pass.Pass) error {
	select {
	case <-l.done:
		return l.err
	default:
	}
	l.p.submit(&flight{Pass: p, origin: true})
	return nil
}

func (l *link) Results(ctx context.Context, receive func(*pass.Result)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.done:
			return l.err
		case r := <-l.results:
			receive(r)
		}
	}
}

// cluster is a coordinator in such a world.
type cluster struct {
	*world
	*Coordinator
	rosters chan plan.Roster
	members []plan.Member
	stop    func()
}

const vocabulary = "../model/testdata/golden/llama/model.gguf"

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, next: func(tokens []token.ID, _ uint64) token.ID { return tokens[len(tokens)-1] + 1 },
		read: time.Millisecond, procs: map[string]*proc{}, links: map[string]*link{}, unfit: map[string]error{},
		events: func(string, ...any) {},
	}
	w.delay.Store(int64(time.Millisecond))
	return w
}

func start(t *testing.T, change func(*Config)) *cluster {
	c := newWorld(t).coordinator("c", change)
	stop := c.stop
	c.stop = func() { stop(); c.end() }
	return c
}

// coordinator starts one.
func (w *world) coordinator(name string, change func(*Config)) *cluster {
	t := w.t
	t.Helper()
	f, err := gguf.Open(vocabulary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cfg, err := model.ReadConfig(f)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.New(f)
	if err != nil {
		t.Fatal(err)
	}
	shape := plan.Shape{Model: "m", Context: 64, Parallel: 2}
	for range cfg.Layers {
		shape.Layers = append(shape.Layers, plan.LayerSize{Weights: 1000, Cache: 1})
	}
	c := Config{
		Name: name, Model: cfg, Shape: shape, Load: pass.Load{Model: "m", Context: 64, Parallel: 2},
		Tokenizer: tok, Shards: 2, MaxWaiting: 1, RecoveryTimeout: time.Minute,
		Dial: func(m plan.Member, fault func(string, error)) Link {
			l := &link{w: w, coordinator: name, member: m, ready: make(chan struct{}), done: make(chan struct{}), die: make(chan error, 1),
				results: make(chan *pass.Result, 256), fault: fault}
			w.mu.Lock()
			defer w.mu.Unlock()
			l.p = w.procs[m.Name]
			w.links[m.Name] = l
			return l
		},
		Tracer: noop.NewTracerProvider().Tracer(""), Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&c)
	}
	co, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cl := &cluster{world: w, Coordinator: co, rosters: make(chan plan.Roster, 8)}
	ended := make(chan error, 1)
	go func() { ended <- co.Run(ctx, cl.rosters) }()
	cl.stop = func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	}
	return cl
}

// join adds shards to the roster, whose processes begin with that.
func (c *cluster) join(names ...string) {
	for _, n := range names {
		c.spawn(n)
		c.members = append(c.members, plan.Member{Name: n, Address: n + ":1", PID: c.procs[n].pid, Memory: 1 << 20})
	}
	c.rosters <- plan.NewRoster(c.members...)
}

// lose takes a shard away, as kill -9 does: its links break, and the roster follows.
func (c *cluster) lose(name string) {
	c.kill(name)
	c.forget(name)
}

// forget takes a shard off the roster.
func (c *cluster) forget(name string) {
	for i, m := range c.members {
		if m.Name == name {
			c.members = append(c.members[:i:i], c.members[i+1:]...)
			break
		}
	}
	c.rosters <- plan.NewRoster(c.members...)
}

func (c *cluster) link(name string) *link {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	return c.links[name]
}

// open counts the sequences that any living shard still caches.
func (c *cluster) open() int {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	n := 0
	for _, p := range c.procs {
		n += p.sequencesHeld()
	}
	return n
}

// settled waits until nothing moves any more.
func (c *cluster) settled() Status {
	time.Sleep(5 * time.Second)
	synctest.Wait()
	return c.Status()
}

// collect runs a request and gathers its answer.
func (c *cluster) collect(ctx context.Context, r Request) (ids []token.ID, text string, answer Answer, err error) {
	answer, err = c.Generate(ctx, r, func(d Delta) error {
		ids = append(ids, d.IDs...)
		text += d.Text
		return nil
	})
	return ids, text, answer, err
}

// spawn starts a shard's process.
func (w *world) spawn(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	pid := len(w.procs) + 100
	if old := w.procs[name]; old != nil {
		pid = old.pid + 1000
	}
	p := newProc(w, name, pid)
	w.procs[name] = p
	w.ever = append(w.ever, p)
	w.tasks.Go(p.run)
}

func (w *world) proc(name string) *proc {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.procs[name]
}

func (w *world) everyProc() []*proc {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ever)
}

func (w *world) kill(name string) { w.proc(name).kill() }

// end ends every process.
func (w *world) end() {
	for _, p := range w.everyProc() {
		p.kill()
	}
	w.tasks.Wait()
}

var _ pipeline.Hop = (*link)(nil)
