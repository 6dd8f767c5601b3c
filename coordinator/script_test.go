package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/model/tokenizer"
	"github.com/daisy-llm/daisy/pass"
)

// world is a world of shards without weights: the token after t is next(t).
type world struct {
	t       *testing.T
	next    func(token.ID) token.ID
	delay   time.Duration // of a pass
	slow    time.Duration // until a link is up
	results chan *pass.Pass

	mu    sync.Mutex
	links map[string]*link // by shard, the newest
	unfit map[string]error // by shard: what its Load gives
	dead  map[string]error // by shard: why it cannot be reached

	loading func(ctx context.Context, shard string, load pass.Load) error // of Loads with layers, if set
}

// link is a scripted Link.
type link struct {
	w      *world
	member plan.Member
	ready  chan struct{}
	done   chan struct{}
	die    chan error // a value ends the link
	err    error
	refuse error                           // of Load
	fault  func(peer string, reason error) // as the coordinator wants to hear it

	mu     sync.Mutex
	silent bool // it answers no probe
	blocks map[pass.PlanID]pass.Load
	open   map[pass.SequenceID]bool
	loads  int
}

func (l *link) Run(ctx context.Context) error {
	defer close(l.done)
	l.w.mu.Lock()
	l.err = l.w.dead[l.member.Name]
	l.w.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	time.Sleep(l.w.slow)
	close(l.ready)
	select {
	case l.err = <-l.die:
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

func (l *link) Probe(ctx context.Context) (uint64, int, error) {
	l.mu.Lock()
	silent := l.silent
	l.mu.Unlock()
	if silent {
		<-ctx.Done()
		return 0, 0, ctx.Err()
	}
	return 0, 0, nil
}

func (l *link) Load(ctx context.Context, load pass.Load, progress func(pass.LoadProgress)) error {
	var err error
	if l.w.loading != nil && load.Layers.Len() > 0 {
		err = l.w.loading(ctx, l.member.Name, load)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loads++
	if l.refuse != nil {
		return l.refuse
	}
	progress(pass.LoadProgress{Done: 1, Total: 1})
	l.blocks[load.Plan] = load // a shard that loads does not hear when nobody waits for it any more
	return err
}

func (l *link) Unload(_ context.Context, plan pass.PlanID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.blocks, plan)
	return nil
}

func (l *link) Begin(_ context.Context, b pass.Begin) (pass.Begun, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.blocks[b.Plan]; !ok {
		return pass.Begun{}, errors.New("no such plan")
	}
	l.open[b.Sequence] = true
	return pass.Begun{}, nil
}

func (l *link) Release(_ context.Context, id pass.SequenceID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, id)
	return nil
}

func (l *link) Describe(context.Context) (pass.Description, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := pass.Description{Name: l.member.Name}
	for id, load := range l.blocks {
		d.Blocks = append(d.Blocks, pass.LoadedBlock{Plan: id, Layers: load.Layers})
	}
	return d, nil
}

func (l *link) Send(p *pass.Pass) error {
	select {
	case <-l.done:
		return l.err
	case l.w.results <- p:
		return nil
	}
}

func (l *link) Results(ctx context.Context, receive func(*pass.Result)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.done:
			return l.err
		case p := <-l.w.results:
			time.Sleep(l.w.delay)
			e := p.Entries[0]
			out := pass.Output{Sequence: e.Sequence, Epoch: e.Epoch, Turn: e.Turn}
			if e.Wants.Token {
				id := l.w.next(e.Tokens[len(e.Tokens)-1])
				out.Choice = &sample.Choice{Alternative: sample.Alternative{Token: id, Logprob: -1}}
			}
			receive(&pass.Result{Number: p.Number, Plan: p.Plan, Outputs: []pass.Output{out}})
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

func start(t *testing.T, change func(*Config)) *cluster {
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
	w := &world{t: t, next: func(id token.ID) token.ID { return id + 1 }, delay: time.Millisecond, results: make(chan *pass.Pass, 64), links: map[string]*link{}, unfit: map[string]error{}, dead: map[string]error{}}
	shape := plan.Shape{Model: "m", Context: 64, Parallel: 2}
	for range cfg.Layers {
		shape.Layers = append(shape.Layers, plan.LayerSize{Weights: 1000, Cache: 1})
	}
	c := Config{
		Name: "c", Model: cfg, Shape: shape, Load: pass.Load{Model: "m", Context: 64, Parallel: 2},
		Tokenizer: tok, Shards: 2, MaxWaiting: 1,
		Dial: func(m plan.Member, fault func(string, error)) Link {
			l := &link{w: w, member: m, ready: make(chan struct{}), done: make(chan struct{}), die: make(chan error, 1),
				blocks: map[pass.PlanID]pass.Load{}, open: map[pass.SequenceID]bool{}}
			w.mu.Lock()
			defer w.mu.Unlock()
			l.refuse, l.fault = w.unfit[m.Name], fault
			if old := w.links[m.Name]; old != nil && old.member == m {
				old.mu.Lock() // the same process
				l.blocks, l.loads = maps.Clone(old.blocks), old.loads
				old.mu.Unlock()
			}
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

// join adds shards to the roster.
func (c *cluster) join(names ...string) {
	for _, n := range names {
		c.members = append(c.members, plan.Member{Name: n, Address: n + ":1", PID: int(n[0]), Memory: 1 << 20})
	}
	c.rosters <- plan.NewRoster(c.members...)
}

// lose takes a shard away, as kill -9 does: the link breaks, the roster follows.
func (c *cluster) lose(name string) {
	killed := fmt.Errorf("shard %s was killed", name)
	c.world.mu.Lock()
	c.dead[name] = killed
	c.world.mu.Unlock()
	c.link(name).die <- killed
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

// open counts the sequences that any shard still caches.
func (c *cluster) open() int {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	n := 0
	for _, l := range c.links {
		l.mu.Lock()
		n += len(l.open)
		l.mu.Unlock()
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

var _ pipeline.Hop = (*link)(nil)
