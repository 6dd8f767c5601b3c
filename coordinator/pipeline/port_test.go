package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// pool is shards that several pipelines visit. Each computes one pass at a time, in the order in which they come, and notes when
// more is on its way to it than it has granted.
type pool struct {
	t     *testing.T
	ports map[string]*Port
	hops  map[string]*worker
	tasks sync.WaitGroup
	end   context.CancelFunc
}

// worker is a scripted shard with an inbox of its own.
type worker struct {
	*scripted
	pool    *pool
	inbox   chan *pass.Pass // as large as the grant
	results chan *pass.Result
}

func newPool(t *testing.T, grant pass.Grant, names ...string) *pool {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pool{t: t, ports: map[string]*Port{}, hops: map[string]*worker{}, end: cancel}
	for _, n := range names {
		w := &worker{
			scripted: &scripted{name: n, grant: grant, done: make(chan struct{})}, pool: p,
			inbox: make(chan *pass.Pass, grant.Passes), results: make(chan *pass.Result, 1024),
		}
		p.hops[n], p.ports[n] = w, NewPort(w)
	}
	for n, w := range p.hops {
		port := p.ports[n]
		p.tasks.Go(func() { w.run(ctx) })
		p.tasks.Go(func() { port.Run(ctx) })
	}
	return p
}

func (p *pool) stop() { p.end(); p.tasks.Wait() }

// pipeline makes one of some of the shards; it runs until the pool stops.
func (p *pool) pipeline(passes *atomic.Uint64, number uint64, names ...string) *Pipeline {
	cfg := Config{Coordinator: "c", Plan: pass.PlanID{Number: number, Leader: "c"}, Hidden: 4, Passes: passes}
	for _, n := range names {
		cfg.Ports = append(cfg.Ports, p.ports[n])
		cfg.Stages = append(cfg.Stages, pass.Stage{Shard: n})
	}
	made, err := New(cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); made.Run(ctx) }()
	p.t.Cleanup(func() { cancel(); <-ended })
	return made
}

func (w *worker) Send(p *pass.Pass) error {
	select {
	case w.inbox <- p:
	default:
		w.pool.t.Errorf("shard %s has more than its %d passes before it", w.name, w.grant.Passes)
	}
	return nil
}

func (w *worker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-w.inbox:
			time.Sleep(time.Millisecond)
			next := *p
			next.Route = p.Route[1:]
			if len(next.Route) > 0 {
				w.pool.hops[next.Route[0].Shard].Send(&next)
				continue
			}
			r := &pass.Result{Number: p.Number, Plan: p.Plan}
			for _, e := range p.Entries {
				r.Outputs = append(r.Outputs, pass.Output{Sequence: e.Sequence, Epoch: e.Epoch})
			}
			w.results <- r
		}
	}
}

func (w *worker) Results(ctx context.Context, receive func(*pass.Result)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.done:
			return w.err
		case r := <-w.results:
			receive(r)
		}
	}
}

// TestPipelinesShareShards: pipelines that visit the same shards in every order get their own results, all of them, and
// together send no shard more than it has granted.
func TestPipelinesShareShards(t *testing.T) {
	for _, grant := range []pass.Grant{{Passes: 1, Bytes: 1 << 10}, {Passes: 3, Bytes: 1 << 10}, {Passes: 64, Bytes: 2 * 16}} {
		t.Run(fmt.Sprint(grant), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool := newPool(t, grant, "a", "b", "c")
				passes := new(atomic.Uint64)
				var all sync.WaitGroup
				for i, order := range [][]string{{"a", "b", "c"}, {"c", "b", "a"}, {"b", "c", "a"}, {"b"}, {"c", "a"}} {
					p := pool.pipeline(passes, uint64(i+1), order...)
					for id := range pass.SequenceID(4) {
						all.Go(func() {
							for turn := range 50 {
								e := entry(token.ID(turn))
								e[0].Sequence = pass.SequenceID(100*i) + id
								ticket, err := p.Send(t.Context(), Trace{}, e)
								if err != nil {
									t.Error(err)
									return
								}
								r, err := ticket.Wait(t.Context())
								if err != nil || r.Plan != p.Plan() || r.Outputs[0].Sequence != e[0].Sequence {
									t.Errorf("pipeline %d, sequence %d: %v, %+v", i, id, err, r)
									return
								}
							}
						})
					}
				}
				done := make(chan struct{})
				go func() { all.Wait(); close(done) }()
				select {
				case <-done:
				case <-time.After(time.Hour):
					t.Fatal("they wait for each other")
				}
				pool.stop()
			})
		})
	}
}

// TestABrokenPipelineSparesOthers: its credit is theirs from then on, and its late results reach nobody.
func TestABrokenPipelineSparesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := newPool(t, pass.Grant{Passes: 2, Bytes: 1 << 10}, "a", "b", "c")
		passes := new(atomic.Uint64)
		one, two := pool.pipeline(passes, 1, "a", "b"), pool.pipeline(passes, 2, "b", "c")
		for i := range token.ID(2) { // all that b has granted; nobody waits for them
			if _, err := one.Send(t.Context(), Trace{}, entry(i)); err != nil {
				t.Fatal(err)
			}
		}
		sent := make(chan error, 1)
		go func() {
			ticket, err := two.Send(t.Context(), Trace{}, entry(3))
			if err == nil {
				_, err = ticket.Wait(t.Context())
			}
			sent <- err
		}()
		synctest.Wait()
		pool.hops["a"].die(errors.New("killed"))
		if err := <-sent; err != nil {
			t.Errorf("the other pipeline's pass ended with %v", err)
		}
		if one.Err() == nil || two.Err() != nil {
			t.Errorf("broken are %v and %v", one.Err(), two.Err())
		}
		for i := range token.ID(5) {
			ticket, err := two.Send(t.Context(), Trace{}, entry(i))
			if err != nil {
				t.Fatal(err)
			}
			if r, err := ticket.Wait(t.Context()); err != nil || r.Plan != two.Plan() {
				t.Errorf("pass %d: %v, %+v", i, err, r)
			}
		}
		pool.stop()
		if n := len(pool.ports["b"].waiting) + len(pool.ports["c"].waiting); n != 0 {
			t.Errorf("%d passes are still waited for", n)
		}
	})
}

// TestResultsThatEndBreakThePipeline: nobody would ever see what its passes come to.
func TestResultsThatEndBreakThePipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := build(t, chain(pass.Grant{Passes: 1, Bytes: 1 << 10}, "a", "b"))
		ended := make(chan error, 1)
		go func() { ended <- p.Run(t.Context()) }()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		p.cfg.Ports[1].Run(ctx)
		if err := <-ended; !errors.Is(err, ErrBroken) {
			t.Errorf("Run ended with %v", err)
		}
	})
}
