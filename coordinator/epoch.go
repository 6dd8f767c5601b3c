package coordinator

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// releaseTimeout bounds how long a finished generation waits for its caches to be freed: a shard does so between passes, and
// the place must not be given to the next generation before. A link that dies ends the wait at once.
const releaseTimeout = time.Minute

// leaveTimeout bounds how long the caches may take to be freed on a shard that a generation has left: nobody waits for it but
// the end of the generation, and an epoch of it that begins on that shard again.
const leaveTimeout = 5 * time.Second

// start begins an epoch on the route and returns the token that follows those that there are.
func (g *generation) start(ctx context.Context) (*sample.Choice, error) {
	held, err := g.begin(ctx)
	if err != nil {
		return nil, err
	}
	if g.epoch == 1 {
		g.answer.CachedTokens = int(held.least())
	}
	from, err := g.replay(ctx, held)
	if err != nil {
		var refused *pass.Refusal
		g.anew = errors.As(err, &refused) && refused.Reason == pass.ReasonGap // what shards said they hold is not to be had
		return nil, err
	}
	choice, err := g.prompt(ctx, from)
	if err == nil {
		g.anew = false
	}
	return choice, err
}

// begin opens the next epoch and says what the stages hold. Every token but the last may be cached by now, in the first epoch
// because another sequence began alike; the last one's position is that of the token which is owed.
func (g *generation) begin(ctx context.Context) (*remains, error) {
	r, p := g.route, g.route.pipeline
	for i, port := range r.ports {
		if left := g.leaving[port]; left != nil {
			<-left // what is on its way there must not end what begins now
			delete(g.leaving, port)
		}
		g.places[r.stages[i].Shard] = port
	}
	for again := g.epoch > 0; ; again = false {
		keep := 0
		if !g.anew {
			keep = len(g.tokens) - 1
		}
		g.epoch++
		g.turn = 0
		begun, err := p.Begin(ctx, pass.Begin{
			Sequence: g.sequence, Epoch: g.epoch, Keep: token.Position(keep), Tokens: g.tokens[:keep:keep],
			Prompt: len(g.request.Prompt), Sampling: g.request.Sampling,
		})
		if err == nil {
			g.settle(ctx)
			return remainsOf(r.blocks(), begun, token.Position(keep)), nil
		}
		if !again || p.Err() != nil || ctx.Err() != nil {
			return nil, &beginError{err}
		}
		// A shard may have it under a plan from which it cannot take it over.
		if err := p.Release(ctx, g.sequence); err != nil {
			return nil, &beginError{err}
		}
	}
}

// beginError says that an epoch was not begun at every stage.
type beginError struct{ err error }

func (e *beginError) Error() string { return e.err.Error() }
func (e *beginError) Unwrap() error { return e.err }

// settle frees what shards hold of the sequence that are not on its route, and leaves the routes before.
func (g *generation) settle(ctx context.Context) {
	for shard, port := range g.places {
		if slices.Contains(g.route.ports, port) {
			continue
		}
		delete(g.places, shard)
		left := make(chan struct{})
		g.leaving[port] = left
		go func() {
			defer close(left)
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
			defer cancel()
			if err := port.Release(ctx, g.sequence); err != nil && !errors.Is(err, pipeline.ErrBroken) {
				g.c.cfg.Log.Warn("a sequence was not released", "sequence", g.sequence, "shard", shard, "error", err)
			}
		}()
	}
	g.leaveAllBut(g.route)
}

// release frees the caches on every shard that still lives.
func (g *generation) release(ctx context.Context) {
	defer g.leaveAllBut(nil)
	if g.epoch == 0 {
		return
	}
	defer func() {
		for _, left := range g.leaving {
			<-left
		}
	}()
	g.settle(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	p := g.route.pipeline
	if err := p.Release(ctx, g.sequence); err != nil && p.Err() == nil {
		g.c.cfg.Log.Warn("a sequence was not released", "sequence", g.sequence, "error", err)
	}
}
