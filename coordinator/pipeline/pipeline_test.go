package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// scripted is a hop without a shard: what it is sent comes out of the last hop of its chain, when the test lets it.
type scripted struct {
	name    string
	grant   pass.Grant
	out     chan *pass.Pass // of the chain
	release chan struct{}   // one value lets one pass through; nil: all
	done    chan struct{}
	err     error

	command func(context.Context) error // what Begin and Release do first; nil: nothing
	refuse  error                       // of Send

	mu    sync.Mutex
	begun []pass.Begin
	freed []pass.SequenceID
}

func chain(grant pass.Grant, names ...string) []*scripted {
	out := make(chan *pass.Pass, 1024)
	var hops []*scripted
	for _, n := range names {
		hops = append(hops, &scripted{name: n, grant: grant, out: out, done: make(chan struct{})})
	}
	return hops
}

func (s *scripted) die(err error) { s.err = err; close(s.done) }

func (s *scripted) Shard() string { return s.name }
func (s *scripted) Load(context.Context, pass.Load, func(pass.LoadProgress)) error {
	return nil
}
func (s *scripted) Unload(context.Context, pass.PlanID) error { return nil }
func (s *scripted) Begin(ctx context.Context, b pass.Begin) (pass.Begun, error) {
	if s.command != nil {
		if err := s.command(ctx); err != nil {
			return pass.Begun{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = append(s.begun, b)
	return pass.Begun{Cached: []pass.Span{{Layers: model.Layers{Last: 1}, Positions: b.Keep}}}, nil
}
func (s *scripted) Release(ctx context.Context, id pass.SequenceID) error {
	if s.command != nil {
		if err := s.command(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freed = append(s.freed, id)
	return nil
}
func (s *scripted) Describe(context.Context) (pass.Description, error) {
	return pass.Description{Name: s.name}, nil
}
func (s *scripted) Grant() pass.Grant     { return s.grant }
func (s *scripted) Done() <-chan struct{} { return s.done }
func (s *scripted) Err() error            { return s.err }

func (s *scripted) Send(p *pass.Pass) error {
	if s.refuse != nil {
		return s.refuse
	}
	select {
	case <-s.done:
		return s.err
	default:
		s.out <- p
		return nil
	}
}

func (s *scripted) Results(ctx context.Context, receive func(*pass.Result)) error {
	for {
		if s.release != nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-s.release:
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.done:
			return s.err
		case p := <-s.out:
			r := &pass.Result{Number: p.Number, Plan: p.Plan}
			for _, e := range p.Entries {
				r.Outputs = append(r.Outputs, pass.Output{Sequence: e.Sequence, Epoch: e.Epoch, Turn: e.Turn,
					Choice: &sample.Choice{Alternative: sample.Alternative{Token: e.Tokens[len(e.Tokens)-1] + 1}}})
			}
			receive(r)
		}
	}
}

func build(t *testing.T, hops []*scripted) *Pipeline {
	t.Helper()
	cfg := Config{Coordinator: "c", Plan: pass.PlanID{Number: 1, Leader: "c"}, Hidden: 4, Passes: new(atomic.Uint64)}
	for i, h := range hops {
		cfg.Ports = append(cfg.Ports, NewPort(h))
		cfg.Stages = append(cfg.Stages, pass.Stage{Shard: h.name, Layers: model.Layers{First: model.LayerIndex(i), Last: model.LayerIndex(i + 1)}})
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// running runs the pipeline, and its last port, in the background until stop, which returns what Run did.
func running(p *Pipeline) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var port sync.WaitGroup
	port.Go(func() { p.cfg.Ports[len(p.cfg.Ports)-1].Run(ctx) })
	go func() { ended <- p.Run(ctx) }()
	return func() error { cancel(); port.Wait(); return <-ended }
}

func entry(id token.ID) []pass.Entry {
	return []pass.Entry{{Sequence: 7, Epoch: 1, Count: 1, Tokens: []token.ID{id}, Wants: pass.Wants{Token: true}}}
}

func TestResultsReachWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hops := chain(pass.Grant{Passes: 4, Bytes: 1 << 10}, "a", "b", "c")
		p := build(t, hops)
		stop := running(p)
		var wg sync.WaitGroup
		for i := range token.ID(100) {
			wg.Go(func() {
				ticket, err := p.Send(t.Context(), Trace{}, entry(i))
				if err != nil {
					t.Error(err)
					return
				}
				r, err := ticket.Wait(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if got := r.Outputs[0].Choice.Token; got != i+1 {
					t.Errorf("the pass of token %d got the result of %d", i, got-1)
				}
			})
		}
		wg.Wait()
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

func TestCreditBoundsWhatIsOnItsWay(t *testing.T) {
	for _, grant := range []pass.Grant{{Passes: 3, Bytes: 1 << 20}, {Passes: 1 << 10, Bytes: 3 * 16}} {
		t.Run(fmt.Sprint(grant), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hops := chain(pass.Grant{Passes: 1 << 11, Bytes: 1 << 30}, "a", "b")
				hops[0].grant = grant // the least of all stages counts
				hops[1].release = make(chan struct{})
				p := build(t, hops)
				stop := running(p)
				for i := range token.ID(3) {
					if _, err := p.Send(t.Context(), Trace{}, entry(i)); err != nil {
						t.Fatal(err)
					}
				}
				sent := make(chan error, 1)
				go func() {
					_, err := p.Send(t.Context(), Trace{}, entry(3))
					sent <- err
				}()
				synctest.Wait()
				select {
				case <-sent:
					t.Fatal("a fourth pass went out on a credit of three")
				default:
				}
				hops[1].release <- struct{}{}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
				stop()
			})
		})
	}
}

func TestABrokenHopEndsEverything(t *testing.T) {
	for dead := range 3 {
		synctest.Test(t, func(t *testing.T) {
			hops := chain(pass.Grant{Passes: 2, Bytes: 1 << 10}, "a", "b", "c")
			hops[2].release = make(chan struct{})
			p := build(t, hops)
			stop := running(p)
			ticket, err := p.Send(t.Context(), Trace{}, entry(1))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Send(t.Context(), Trace{}, entry(2)); err != nil {
				t.Fatal(err)
			}
			waits := make(chan error, 1)
			go func() { // waits for credit
				_, err := p.Send(t.Context(), Trace{}, entry(3))
				waits <- err
			}()
			synctest.Wait()
			hops[dead].die(errors.New("killed"))
			if _, err := ticket.Wait(t.Context()); !errors.Is(err, ErrBroken) {
				t.Errorf("waiting ended with %v", err)
			}
			if err := <-waits; !errors.Is(err, ErrBroken) {
				t.Errorf("waiting for credit ended with %v", err)
			}
			if err := stop(); !errors.Is(err, ErrBroken) {
				t.Errorf("Run ended with %v", err)
			}
		})
	}
}

func TestAnAbandonedPassGivesItsCreditBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hops := chain(pass.Grant{Passes: 1, Bytes: 1 << 10}, "a")
		hops[0].release = make(chan struct{})
		p := build(t, hops)
		stop := running(p)
		ticket, err := p.Send(t.Context(), Trace{}, entry(1))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := ticket.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("waiting ended with %v", err)
		}
		hops[0].release <- struct{}{}
		if _, err := p.Send(t.Context(), Trace{}, entry(2)); err != nil {
			t.Fatal(err)
		}
		stop()
	})
}

func TestBeginAndReleaseReachEveryStage(t *testing.T) {
	hops := chain(pass.Grant{Passes: 1, Bytes: 1 << 10}, "a", "b", "c")
	p := build(t, hops)
	begin := pass.Begin{Sequence: 3, Epoch: 2, Keep: 2, Tokens: []token.ID{5, 6}, Prompt: 2}
	begun, err := p.Begin(t.Context(), begin)
	if err != nil {
		t.Fatal(err)
	}
	if len(begun) != 3 || begun[0].Cached[0].Positions != 2 || begun[2].Cached[0].Positions != 2 {
		t.Errorf("the stages hold %v", begun)
	}
	if err := p.Release(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	for i, h := range hops {
		if len(h.begun) != 1 || len(h.freed) != 1 || h.begun[0].Plan != p.Plan() || h.begun[0].Keep != 2 {
			t.Errorf("stage %d began %v and released %v", i, h.begun, h.freed)
		}
		if !slices.Equal(h.begun[0].Tokens, begin.Tokens) {
			t.Errorf("stage %d was given the tokens %v: they name its pages", i, h.begun[0].Tokens)
		}
	}
}

// TestOneStageThatFailsSparesTheOthers: a sequence is begun at, and released from, every stage that can be reached, however
// fast another one fails, and Begin returns only when none is on its way any more.
func TestOneStageThatFailsSparesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hops := chain(pass.Grant{Passes: 1, Bytes: 1 << 10}, "a", "b")
		dead := errors.New("killed")
		hops[0].command = func(context.Context) error { return dead }
		hops[1].command = func(ctx context.Context) error {
			select {
			case <-time.After(time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		p := build(t, hops)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := p.Begin(ctx, pass.Begin{Sequence: 3, Epoch: 1}); !errors.Is(err, dead) {
			t.Errorf("Begin ended with %v", err)
		}
		if err := p.Release(t.Context(), 3); !errors.Is(err, dead) {
			t.Errorf("Release ended with %v", err)
		}
		if len(hops[1].begun) != 1 || len(hops[1].freed) != 1 {
			t.Errorf("the stage that lives began %v and released %v", hops[1].begun, hops[1].freed)
		}
	})
}

// TestAPassThatCannotBeSentBreaksThePipeline: what was sent before it over the same stream may be lost as well.
func TestAPassThatCannotBeSentBreaksThePipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hops := chain(pass.Grant{Passes: 2, Bytes: 1 << 10}, "a")
		hops[0].release = make(chan struct{})
		p := build(t, hops)
		stop := running(p)
		ticket, err := p.Send(t.Context(), Trace{}, entry(1))
		if err != nil {
			t.Fatal(err)
		}
		hops[0].refuse = errors.New("the stream is gone")
		if _, err := p.Send(t.Context(), Trace{}, entry(2)); !errors.Is(err, ErrBroken) {
			t.Errorf("sending ended with %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := ticket.Wait(ctx); !errors.Is(err, ErrBroken) {
			t.Errorf("the pass before it ended with %v", err)
		}
		stop()
	})
}

// TestABrokenPipelineEnds: also for a reason that no hop can see.
func TestABrokenPipelineEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := build(t, chain(pass.Grant{Passes: 1, Bytes: 1 << 10}, "a", "b"))
		ended := make(chan error, 1)
		go func() { ended <- p.Run(t.Context()) }()
		synctest.Wait()
		p.Break(errors.New("a new plan replaces it"))
		select {
		case err := <-ended:
			if !errors.Is(err, ErrBroken) {
				t.Errorf("Run ended with %v", err)
			}
		case <-time.After(time.Hour):
			t.Error("Run goes on")
		}
	})
}

func TestTooLargeAPassIsRefused(t *testing.T) {
	p := build(t, chain(pass.Grant{Passes: 1, Bytes: 64}, "a"))
	if p.MaxPositions() != 4 {
		t.Fatalf("%d positions fit 64 bytes of rows of 16", p.MaxPositions())
	}
	e := entry(1)
	e[0].Count, e[0].Tokens = 5, make([]token.ID, 5)
	if _, err := p.Send(t.Context(), Trace{}, e); err == nil {
		t.Error("a pass above the credit was sent")
	}
	if _, err := New(Config{Ports: []*Port{NewPort(chain(pass.Grant{Passes: 1, Bytes: 8}, "a")[0])}, Stages: make([]pass.Stage, 1), Hidden: 4}); err == nil {
		t.Error("a pipeline whose credit holds no position was made")
	}
}
