package coordinator

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// releaseTimeout bounds how long a finished generation waits for its caches to be freed: a shard does so between passes, and
// the place must not be given to the next generation before. A link that dies ends the wait at once.
const releaseTimeout = time.Minute

// start begins an epoch in the deployment and returns the token that follows those that there are.
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
	g.hold(g.deployment)
	p := g.deployment.pipeline
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
			g.leaveAllBut(g.deployment)
			return remainsOf(g.deployment.blocks(), begun, token.Position(keep)), nil
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

// release frees the caches on every shard that still lives.
func (g *generation) release(ctx context.Context) {
	if g.epoch == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	defer g.leaveAllBut(nil)
	p := g.deployment.pipeline
	if err := p.Release(ctx, g.sequence); err != nil && p.Err() == nil {
		g.c.cfg.Log.Warn("a sequence was not released", "sequence", g.sequence, "error", err)
	}
}

// hold keeps a deployment's plan loaded, until leaveAllBut.
func (g *generation) hold(d *deployment) {
	if !slices.Contains(g.held, d) {
		d.users.Add(1)
		g.held = append(g.held, d)
	}
}

func (g *generation) leaveAllBut(d *deployment) {
	g.held = slices.DeleteFunc(g.held, func(other *deployment) bool {
		if other != d {
			other.leave()
		}
		return other != d
	})
}
