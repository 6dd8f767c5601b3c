package rpc_test

import (
	"slices"
	"testing"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// turn is a prompt of which the stages may hold a beginning.
type turn struct {
	name   string
	tokens []token.ID
	cached int // positions that every stage says it holds
	chunk  int
}

// open begins a sequence as coordinators do and returns how many positions every stage holds.
func (l *line) open(t *testing.T, id pass.SequenceID, ids []token.ID) (begun []pass.Begun, least int) {
	t.Helper()
	keep := len(ids) - 1
	begun, err := l.Begin(t.Context(), pass.Begin{Sequence: id, Epoch: l.epoch, Keep: token.Position(keep), Tokens: ids[:keep], Prompt: len(ids)})
	if err != nil {
		t.Fatal(err)
	}
	l.turn[id] = 0
	least = keep
	for _, b := range begun {
		for _, span := range b.Cached {
			least = min(least, int(span.Positions))
		}
	}
	return begun, least
}

// take runs a sequence on from a position and compares the logits with what they should be.
func (l *line) take(t *testing.T, id pass.SequenceID, from int, ids []token.ID, chunk int, want []float32) {
	t.Helper()
	for first := from; first < len(ids); first += chunk {
		last := min(first+chunk, len(ids))
		out := l.run(t, id, token.Position(first), ids[first:last], pass.Wants{Logits: true})
		if out.Refused != nil {
			t.Fatal(out.Refused)
		}
		if !sameBits(out.Logits, want[first*l.vocab:last*l.vocab]) {
			t.Fatalf("other bits at positions [%d, %d)", first, last)
		}
	}
}

// said is a prompt of the golden model's words, as long as asked for.
func said(g *golden, n int) []token.ID {
	var ids []token.ID
	for len(ids) < n {
		ids = append(append(ids, g.Prompts["short"].TokenIDs...), g.Prompts["short"].GreedyIDs...)
	}
	return ids[:n]
}

// TestPrefixHits: a sequence that begins like one before it computes only what is its own, and gets the bits that it would
// have got alone; also when pages have been evicted meanwhile, and when others run beside it.
func TestPrefixHits(t *testing.T) {
	for _, name := range []string{"llama", "gemma3", "olmo3", "qwen2"} {
		for _, cache := range []kvcache.Type{kvcache.F16, kvcache.F32} {
			t.Run(name+"/"+cache.String(), func(t *testing.T) {
				g := openGolden(t, name)
				ids := said(g, 220)
				fork := slices.Clone(ids)
				fork[130] = fork[130] ^ 1
				alone := startLine(t, g.path, 1, cache, workerOptions{})
				want, wantFork := alone.prompt(t, 1, ids, 97), alone.prompt(t, 2, fork, 97)
				l := startLine(t, g.path, 3, cache, workerOptions{})
				id := pass.SequenceID(0)
				for _, c := range []turn{
					{"the first", ids[:150], 0, 40},
					{"the same", ids[:150], 128, 7},
					{"more of it", ids, 128, 64},
					{"all of it again", ids, 192, 28},
					{"another end", fork, 128, 13},
					{"that again", fork, 192, 64},
					{"whole pages and one token", ids[:129], 128, 1},
					{"whole pages", ids[:128], 64, 64},
					{"no whole page", ids[:64], 0, 64},
				} {
					id++
					_, cached := l.open(t, id, c.tokens)
					if cached != c.cached {
						t.Errorf("%s: %d positions are cached, want %d", c.name, cached, c.cached)
					}
					logits := want
					if c.tokens[len(c.tokens)-1] == 0 || len(c.tokens) > 130 && c.tokens[130] == fork[130] {
						logits = wantFork
					}
					l.take(t, id, cached, c.tokens, c.chunk, logits)
					if err := l.Release(t.Context(), id); err != nil {
						t.Fatal(err)
					}
				}
				l.nothingPinned(t)

				// Two run beside each other over the same pages; one goes back into them.
				l.open(t, 100, ids)
				l.open(t, 101, ids)
				l.take(t, 101, 192, ids, 28, want)
				l.take(t, 101, 150, ids, 30, want)
				l.take(t, 100, 192, ids, 9, want)
				for _, id := range []pass.SequenceID{100, 101} {
					if err := l.Release(t.Context(), id); err != nil {
						t.Fatal(err)
					}
				}
				// There is room for four contexts of four pages: others drive what was kept out.
				for i := range 5 {
					other := slices.Clone(ids)
					other[0] = token.ID(i + 1)
					other[1] = other[0]
					_, cached := l.open(t, pass.SequenceID(200+i), other)
					if cached != 0 {
						t.Errorf("another prompt: %d positions are cached", cached)
					}
					if out := l.run(t, pass.SequenceID(200+i), 0, other, pass.Wants{}); out.Refused != nil {
						t.Fatal(out.Refused)
					}
					if err := l.Release(t.Context(), pass.SequenceID(200+i)); err != nil {
						t.Fatal(err)
					}
				}
				_, cached := l.open(t, 300, ids)
				if cached >= 192 {
					t.Errorf("%d positions are cached after others took their room", cached)
				}
				l.take(t, 300, cached, ids, 50, want)
				if err := l.Release(t.Context(), 300); err != nil {
					t.Fatal(err)
				}
				l.nothingPinned(t)
			})
		}
	}
}

func (l *line) nothingPinned(t *testing.T) {
	t.Helper()
	for _, w := range l.workers {
		blocks, _, err := w.shard.Blocks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			if b.Sequences != 0 || b.Cached != 0 {
				t.Errorf("shard %s holds %d sequences in %d bytes after every release", w.name, b.Sequences, b.Cached)
			}
		}
	}
}

// TestPrefixHitsAfterALoss: what survivors have kept of a sequence that has ended is there for the next one, which has
// only the lost layers replayed, from the log that was kept with the pages.
func TestPrefixHitsAfterALoss(t *testing.T) {
	g := openGolden(t, "llama")
	ids := said(g, 220)
	running := slices.Clone(ids[:100])
	running[0] ^= 1
	want := startLine(t, g.path, 1, kvcache.F16, workerOptions{}).prompt(t, 1, ids, len(ids))
	for _, r := range recoveries {
		t.Run(r.name, func(t *testing.T) {
			l := startCut(t, g.path, func(int) []int { return []int{0, 1, 3, 4} }, kvcache.F16, workerOptions{})
			l.open(t, 9, ids[:200])
			l.take(t, 9, 0, ids[:200], 100, want)
			if err := l.Release(t.Context(), 9); err != nil {
				t.Fatal(err)
			}
			l.open(t, 1, running)
			if out := l.run(t, 1, 0, running, pass.Wants{}); out.Refused != nil {
				t.Fatal(out.Refused)
			}
			l.workers[r.lost].kill()
			<-l.ended
			l.recover(t, g, r, running)

			begun, least := l.open(t, 10, ids)
			if r.places[len(r.places)-1].worker == 1 { // the last stage keeps no log any more
				if least != 0 || begun[1].Cached[0].Positions != 192 {
					t.Errorf("the stages hold %v", begun)
				}
				l.take(t, 10, 0, ids, 50, want)
				return
			}
			l.expect(t, r, begun, 192)
			for first := 0; first < 192; first += 50 {
				last := min(first+50, 192)
				ticket, err := l.Replay(t.Context(), pipeline.Trace{}, r.replay, r.from, []pass.Entry{{
					Sequence: 10, Epoch: 2, First: token.Position(first), Count: last - first, Tokens: ids[first:last],
				}})
				if err != nil {
					t.Fatal(err)
				}
				result, err := ticket.Wait(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if refused := result.Outputs[0].Refused; refused != nil {
					t.Fatal(refused)
				}
			}
			l.take(t, 10, 192, ids, 11, want)
			if err := l.Release(t.Context(), 10); err != nil {
				t.Fatal(err)
			}
			// The replay has filled in what was lost for whoever comes next.
			_, cached := l.open(t, 11, ids)
			if cached != 192 {
				t.Errorf("%d positions are cached", cached)
			}
			l.take(t, 11, cached, ids, 28, want)
		})
	}
}
