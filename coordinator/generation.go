package coordinator

import (
	"context"
	"errors"
	"fmt"
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

	route   *route                           // it runs in, or ran in last; nil before the first
	held    []*route                         // among whose users it is
	places  map[string]*pipeline.Port        // shards that may hold something of it
	leaving map[*pipeline.Port]chan struct{} // shards that it has left: closed once they have freed what they held
	epoch   pass.Epoch                       // that has begun last; 0: none
	turn    uint32                           // of the epoch's next entry
	anew    bool                             // a replay failed: the next epoch keeps nothing
	trace   pipeline.Trace
	results int // that have come
}

// run takes the answer to its end, in as many epochs as it needs.
func (g *generation) run(ctx context.Context) error {
	defer g.release(ctx)
	if err := g.enter(ctx, time.Now().Add(g.c.cfg.RecoveryTimeout)); err != nil {
		return err
	}
	choice, err := g.start(ctx)
	for {
		if err == nil {
			err = g.decode(ctx, choice)
		}
		switch {
		case errors.Is(err, errMove):
			choice, err = g.move(ctx)
		case err == nil || !isLoss(err):
			return err
		default:
			if choice, err = g.recover(ctx, err); err != nil {
				return err
			}
		}
	}
}

// prompt sends the tokens from a position on through the pipeline in chunks, and returns the token that follows the last.
// Chunks follow each other without waiting, as many as there are stages and one more; none but the last wants a token.
func (g *generation) prompt(ctx context.Context, from token.Position) (*sample.Choice, error) {
	ctx, span := g.c.cfg.Tracer.Start(ctx, "prompt", trace.WithAttributes(
		attribute.Int("daisy.first_position", int(from)), attribute.Int("daisy.positions", len(g.tokens)-int(from)), attribute.Int("daisy.epoch", int(g.epoch)),
	))
	defer span.End()
	g.trace = traceOf(ctx)
	p := g.route.pipeline
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
		if g.route.left.Load() { // the client need not wait until it is this one's turn
			if err := g.emit(delta); err != nil {
				return err
			}
			if delta = (Delta{}); g.mayMove() {
				return errMove
			}
		}
		last := len(g.tokens) - 1
		t, lost := g.send(ctx, g.tokens[last:last+1:last+1], token.Position(last), true)
		if len(delta.IDs) > 0 {
			if err := g.emit(delta); err != nil {
				return err
			}
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
	return g.route.pipeline.Send(ctx, g.trace, []pass.Entry{e})
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
	g.results++
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
