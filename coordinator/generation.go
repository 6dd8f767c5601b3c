package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/model/tokenizer"
	"github.com/daisy-llm/daisy/pass"
)

// promptChunk is how many positions of a prompt one pass takes: enough to keep a stage's kernels at their best, few enough
// that the chunks of one prompt keep several stages busy. It changes no bit of the answer.
const promptChunk = 128

// releaseTimeout bounds how long a finished generation waits for its caches to be freed: a shard does so between passes, and
// the place must not be given to the next generation before. A link that dies ends the wait at once.
const releaseTimeout = time.Minute

// generation is the state of one running Generate. It outlives pipelines: what it has received is its own, and all that
// shards hold of it can be made again from its tokens.
type generation struct {
	c        *Coordinator
	request  *Request
	emit     func(Delta) error
	sequence pass.SequenceID
	tokens   []token.ID // the prompt and the answer so far
	decoder  *tokenizer.Decoder
	stops    stopMatcher
	answer   Answer

	deployment *deployment   // it runs in, or ran in last; nil before the first
	held       []*deployment // in which shards may hold something of it
	epoch      pass.Epoch    // that has begun last; 0: none
	turn       uint32        // of the epoch's next entry
	anew       bool          // a replay failed: the next epoch keeps nothing
	trace      pipeline.Trace
}

// run takes the answer to its end, in as many epochs as it needs.
func (g *generation) run(ctx context.Context) error {
	defer g.release(ctx)
	var err error
	if g.deployment, err = g.c.deployed(ctx, time.Now().Add(g.c.cfg.RecoveryTimeout)); err != nil {
		return err
	}
	choice, err := g.start(ctx)
	for {
		if err == nil {
			err = g.decode(ctx, choice)
		}
		if err == nil || !isLoss(err) {
			return err
		}
		if choice, err = g.recover(ctx, err); err != nil {
			return err
		}
	}
}

// start begins an epoch in the deployment and returns the token that follows those that there are.
func (g *generation) start(ctx context.Context) (*sample.Choice, error) {
	held, err := g.begin(ctx)
	if err != nil {
		return nil, err
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

// begin opens the next epoch and says what the stages hold. Every token but the last may be cached by now; the last one's
// position is that of the token which is owed.
func (g *generation) begin(ctx context.Context) (*remains, error) {
	g.hold(g.deployment)
	p := g.deployment.pipeline
	for again := g.epoch > 0; ; again = false {
		keep := 0
		if g.epoch > 0 && !g.anew {
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

// prompt sends the tokens from a position on through the pipeline in chunks, and returns the token that follows the last.
// Chunks follow each other without waiting, as many as there are stages and one more; none but the last wants a token.
func (g *generation) prompt(ctx context.Context, from token.Position) (*sample.Choice, error) {
	ctx, span := g.c.cfg.Tracer.Start(ctx, "prompt", trace.WithAttributes(
		attribute.Int("daisy.first_position", int(from)), attribute.Int("daisy.positions", len(g.tokens)-int(from)), attribute.Int("daisy.epoch", int(g.epoch)),
	))
	defer span.End()
	g.trace = traceOf(ctx)
	p := g.deployment.pipeline
	var flying []*pipeline.Ticket
	for first := int(from); first < len(g.tokens); {
		last := min(first+promptChunk, first+p.MaxPositions(), len(g.tokens))
		t, err := g.send(ctx, g.tokens[first:last:last], token.Position(first), last == len(g.tokens))
		if err != nil {
			return nil, err
		}
		flying = append(flying, t)
		first = last
		if len(flying) > p.Stages() {
			if _, err := g.receive(ctx, flying[0]); err != nil {
				return nil, err
			}
			flying = flying[1:]
		}
	}
	var out *pass.Output
	for _, t := range flying {
		var err error
		if out, err = g.receive(ctx, t); err != nil {
			return nil, err
		}
	}
	return g.choiceOf(out)
}

// decode takes the answer on from its next token, one pass a token, until it ends. The pass of the next token is under way
// while the text of this one goes to the client, who gets it whatever becomes of that pass.
func (g *generation) decode(ctx context.Context, choice *sample.Choice) error {
	ctx, span := g.c.cfg.Tracer.Start(ctx, "decode")
	defer span.End()
	g.trace = traceOf(ctx)
	for {
		delta := g.take(choice)
		if g.answer.Finish != "" {
			return g.emit(delta)
		}
		last := len(g.tokens) - 1
		t, lost := g.send(ctx, g.tokens[last:last+1:last+1], token.Position(last), true)
		if err := g.emit(delta); err != nil {
			return err
		}
		if lost != nil {
			return lost
		}
		out, err := g.receive(ctx, t)
		if err != nil {
			return err
		}
		if choice, err = g.choiceOf(out); err != nil {
			return err
		}
	}
}

// take adds a token to the answer, sees whether it is complete, and returns what the client gets of it.
func (g *generation) take(choice *sample.Choice) Delta {
	g.tokens = append(g.tokens, choice.Token)
	g.answer.GeneratedTokens++
	delta := Delta{IDs: []token.ID{choice.Token}}
	if g.request.Logprobs {
		delta.Logprobs = []sample.Choice{*choice}
	}
	end := g.c.cfg.Tokenizer.IsEndOfGeneration(choice.Token) && !g.request.IgnoreEOS
	if !end {
		delta.Text, g.answer.Stop = g.stops.push(g.decoder.Push(choice.Token))
	}
	switch {
	case g.answer.Stop != "":
		g.answer.Finish = FinishStop
		return delta
	case end:
		g.answer.Finish = FinishStop
	case g.answer.GeneratedTokens >= g.request.MaxTokens:
		g.answer.Finish = FinishLength
	default:
		return delta
	}
	// The end may complete a stop string, or show that what was held back is none.
	text, stop := g.stops.push(g.decoder.Flush())
	delta.Text += text
	if stop == "" {
		delta.Text += g.stops.flush()
	} else {
		g.answer.Stop, g.answer.Finish = stop, FinishStop
	}
	return delta
}

// send starts a pass over the next positions of the sequence.
func (g *generation) send(ctx context.Context, tokens []token.ID, first token.Position, want bool) (*pipeline.Ticket, error) {
	e := pass.Entry{Sequence: g.sequence, Epoch: g.epoch, Turn: g.turn, First: first, Count: len(tokens), Tokens: tokens}
	if want {
		e.Wants = pass.Wants{Token: true, Logprobs: g.request.Logprobs, Top: g.request.Top}
	}
	g.turn++
	return g.deployment.pipeline.Send(ctx, g.trace, []pass.Entry{e})
}

// receive waits for a pass and returns what became of its one entry.
func (g *generation) receive(ctx context.Context, t *pipeline.Ticket) (*pass.Output, error) {
	r, err := t.Wait(ctx)
	if err != nil {
		return nil, err
	}
	if len(r.Outputs) != 1 || r.Outputs[0].Sequence != g.sequence || r.Outputs[0].Epoch != g.epoch {
		return nil, fmt.Errorf("the result of pass %d is not that of epoch %d of sequence %d", r.Number, g.epoch, g.sequence)
	}
	if refused := r.Outputs[0].Refused; refused != nil {
		return nil, refused
	}
	return &r.Outputs[0], nil
}

// choiceOf is the token that the last stage has sampled.
func (g *generation) choiceOf(out *pass.Output) (*sample.Choice, error) {
	if out.Choice == nil {
		return nil, errors.New("the last stage returned no token")
	}
	if vocab := g.c.cfg.Model.Vocab; int(out.Choice.Token) >= vocab {
		return nil, fmt.Errorf("the last stage returned token %d of a vocabulary of %d", out.Choice.Token, vocab)
	}
	return out.Choice, nil
}

// traceOf is the trace context that passes carry: none if nobody records.
func traceOf(ctx context.Context) pipeline.Trace {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return pipeline.Trace{}
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	state := carrier["tracestate"]
	if len(state) > pass.MaxTraceStateBytes { // a client's; the trace goes on without
		state = ""
	}
	return pipeline.Trace{Parent: carrier["traceparent"], State: state}
}
