package coordinator

import (
	"context"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/pass"
)

// maxStops bounds what a stop matcher has to look for.
const (
	maxStops     = 64
	maxStopBytes = 1024
)

// Generate runs one generation. It calls emit with each piece of the answer, in order and once, whatever shards are lost
// meanwhile, and returns when the answer is complete, when emit fails, when ctx ends, or when no pipeline was to be had for
// Config.RecoveryTimeout (ErrNotReady if none ever was, else ErrLost); the caches on every shard are freed by then.
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
	g := &generation{
		c: c, request: &r, emit: emit,
		sequence: pass.SequenceID(c.sequences.Add(1)),
		tokens:   slices.Clone(r.Prompt),
		decoder:  c.cfg.Tokenizer.NewDecoderAfter(r.Prompt, false),
		stops:    stopMatcher{stops: r.Stop},
		answer:   Answer{PromptTokens: len(r.Prompt)},
		places:   make(map[string]*pipeline.Port),
		leaving:  make(map[*pipeline.Port]chan struct{}),
	}
	err = g.run(ctx)
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
