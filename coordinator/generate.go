package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
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

// maxStops bounds what a stop matcher has to look for.
const (
	maxStops     = 64
	maxStopBytes = 1024
)

// Generate runs one generation. It calls emit with each piece of the answer, in order, and returns when the answer is
// complete, when emit fails, or when ctx ends; the caches on every shard are freed by then.
func (c *Coordinator) Generate(ctx context.Context, r Request, emit func(Delta) error) (answer Answer, err error) {
	ctx, span := c.cfg.Tracer.Start(ctx, "generate", trace.WithAttributes(
		attribute.String("daisy.model", c.cfg.Load.Model),
		attribute.Int("daisy.prompt_tokens", len(r.Prompt)),
	))
	defer func() {
		span.SetAttributes(attribute.Int("daisy.generated_tokens", answer.GeneratedTokens), attribute.String("daisy.finish", string(answer.Finish)))
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}()
	if err := c.check(&r); err != nil {
		return Answer{}, err
	}
	if err := c.admit(ctx); err != nil {
		return Answer{}, err
	}
	defer c.leave()
	d, err := c.deployed(ctx)
	if err != nil {
		return Answer{}, err
	}
	g := &generation{
		c: c, pipeline: d.pipeline, request: &r, emit: emit,
		sequence: pass.SequenceID(c.sequences.Add(1)),
		decoder:  c.cfg.Tokenizer.NewDecoderAfter(r.Prompt, false),
		stops:    stopMatcher{stops: r.Stop},
		answer:   Answer{PromptTokens: len(r.Prompt)},
	}
	err = g.run(ctx)
	if errors.Is(err, pipeline.ErrBroken) {
		err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	return g.answer, err
}

// check refuses what cannot be, before anything is reserved for it.
func (c *Coordinator) check(r *Request) error {
	switch {
	case len(r.Prompt) == 0:
		return fmt.Errorf("%w: the prompt has no tokens", ErrInvalid)
	case len(r.Prompt) >= c.cfg.Shape.Context:
		return fmt.Errorf("%w: %d tokens, and the answer, in a context of %d", ErrTooLong, len(r.Prompt), c.cfg.Shape.Context)
	case r.MaxTokens < 0:
		return fmt.Errorf("%w: %d tokens at most", ErrInvalid, r.MaxTokens)
	case r.Top < 0 || r.Top > pass.MaxTop:
		return fmt.Errorf("%w: %d alternatives, at most %d are possible", ErrInvalid, r.Top, pass.MaxTop)
	case len(r.Stop) > maxStops:
		return fmt.Errorf("%w: %d stop strings, at most %d are possible", ErrInvalid, len(r.Stop), maxStops)
	}
	for _, s := range r.Stop {
		if s == "" || len(s) > maxStopBytes {
			return fmt.Errorf("%w: a stop string of %d bytes, possible are 1 to %d", ErrInvalid, len(s), maxStopBytes)
		}
	}
	for _, id := range r.Prompt {
		if id < 0 || int(id) >= c.cfg.Model.Vocab {
			return fmt.Errorf("%w: token %d is not in the vocabulary of %d", ErrInvalid, id, c.cfg.Model.Vocab)
		}
	}
	if err := r.Sampling.Validate(c.cfg.Model.Vocab); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if r.Sampling.TopK >= c.cfg.Model.Vocab {
		r.Sampling.TopK = 0 // all, and within the bounds of what shards accept
	}
	room := c.cfg.Shape.Context - len(r.Prompt)
	if r.MaxTokens == 0 || r.MaxTokens > room {
		r.MaxTokens = room
	}
	return nil
}

// admit waits for a place.
func (c *Coordinator) admit(ctx context.Context) error {
	if !c.places.TryAcquire(1) {
		if n := c.waiting.Add(1); n > int64(c.cfg.MaxWaiting) {
			c.waiting.Add(-1)
			return fmt.Errorf("%w: %d", ErrBusy, n-1)
		}
		err := c.places.Acquire(ctx, 1)
		c.waiting.Add(-1)
		if err != nil {
			return err
		}
	}
	c.active.Add(1)
	return nil
}

func (c *Coordinator) leave() {
	c.places.Release(1)
	if c.active.Add(-1) == 0 {
		select {
		case c.idle <- struct{}{}:
		default:
		}
	}
}

// generation is the state of one running Generate.
type generation struct {
	c        *Coordinator
	pipeline *pipeline.Pipeline
	request  *Request
	emit     func(Delta) error
	sequence pass.SequenceID
	turn     uint32
	decoder  *tokenizer.Decoder
	stops    stopMatcher
	answer   Answer
	trace    pipeline.Trace
}

// epoch is the only one there is until sequences outlive their pipeline.
const epoch pass.Epoch = 1

func (g *generation) run(ctx context.Context) error {
	begin := pass.Begin{Sequence: g.sequence, Epoch: epoch, Prompt: len(g.request.Prompt), Sampling: g.request.Sampling}
	defer g.release(ctx)
	if _, err := g.pipeline.Begin(ctx, begin); err != nil {
		return err
	}
	choice, err := g.prompt(ctx)
	if err != nil {
		return err
	}
	return g.decode(ctx, choice)
}

// release frees the caches on every shard that still lives.
func (g *generation) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := g.pipeline.Release(ctx, g.sequence); err != nil && g.pipeline.Err() == nil {
		g.c.cfg.Log.Warn("a sequence was not released", "sequence", g.sequence, "error", err)
	}
}

// prompt sends the prompt through the pipeline in chunks and returns the first token of the answer. Chunks follow each
// other without waiting, as many as there are stages and one more.
func (g *generation) prompt(ctx context.Context) (*sample.Choice, error) {
	ctx, span := g.c.cfg.Tracer.Start(ctx, "prompt", trace.WithAttributes(attribute.Int("daisy.positions", len(g.request.Prompt))))
	defer span.End()
	g.trace = traceOf(ctx)
	tokens := g.request.Prompt
	var flying []*pipeline.Ticket
	for first := 0; first < len(tokens); {
		last := min(first+promptChunk, first+g.pipeline.MaxPositions(), len(tokens))
		t, err := g.send(ctx, tokens[first:last], token.Position(first), last == len(tokens))
		if err != nil {
			return nil, err
		}
		flying = append(flying, t)
		first = last
		if len(flying) > g.pipeline.Stages() {
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

// decode takes the answer on from its first token, one pass a token, until it ends. The pass of the next token is under way
// while the text of this one goes to the client.
func (g *generation) decode(ctx context.Context, choice *sample.Choice) error {
	ctx, span := g.c.cfg.Tracer.Start(ctx, "decode")
	defer span.End()
	g.trace = traceOf(ctx)
	for {
		delta := g.take(choice)
		if g.answer.Finish != "" {
			return g.emit(delta)
		}
		position := token.Position(len(g.request.Prompt) + g.answer.GeneratedTokens - 1)
		t, err := g.send(ctx, []token.ID{choice.Token}, position, true)
		if err != nil {
			return err
		}
		if err := g.emit(delta); err != nil {
			return err
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
	e := pass.Entry{Sequence: g.sequence, Epoch: epoch, Turn: g.turn, First: first, Count: len(tokens), Tokens: tokens}
	if want {
		e.Wants = pass.Wants{Token: true, Logprobs: g.request.Logprobs, Top: g.request.Top}
	}
	g.turn++
	return g.pipeline.Send(ctx, g.trace, []pass.Entry{e})
}

// receive waits for a pass and returns what became of its one entry.
func (g *generation) receive(ctx context.Context, t *pipeline.Ticket) (*pass.Output, error) {
	r, err := t.Wait(ctx)
	if err != nil {
		return nil, err
	}
	if len(r.Outputs) != 1 || r.Outputs[0].Sequence != g.sequence {
		return nil, fmt.Errorf("the result of pass %d is not that of sequence %d", r.Number, g.sequence)
	}
	refused := r.Outputs[0].Refused
	switch {
	case refused == nil:
		return &r.Outputs[0], nil
	case refused.Reason == pass.ReasonNoSequence || refused.Reason == pass.ReasonPlan: // which it had: its link's end is on its way here
		return nil, fmt.Errorf("%w: %w", ErrLost, refused)
	}
	return nil, refused
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
