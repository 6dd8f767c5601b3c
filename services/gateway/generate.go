package gateway

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daisy-llm/daisy/coordinator"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
)

// job is a request that has been understood: what to generate, and how to tell it.
type job struct {
	options
	form        form
	id          string
	created     int64
	model       string
	fingerprint string
	prompts     []prompt
	answers     []*choice // options.choices for each prompt, in the prompts' order
}

// prompt is one prompt of a request.
type prompt struct {
	text string // as the client gave it, for echo
	ids  []token.ID
}

// choice is one answer of a request, as far as it has come. Only the goroutine that serves the request touches it.
type choice struct {
	index    int
	prompt   *prompt
	request  coordinator.Request
	opened   bool // its first chunk is out
	text     strings.Builder
	ids      []token.ID
	logprobs []sample.Choice
	offset   int // characters before the next token's text
	answer   coordinator.Answer
}

// delta is all of a finished choice in one piece.
func (c *choice) delta() coordinator.Delta {
	return coordinator.Delta{IDs: c.ids, Text: c.text.String(), Logprobs: c.logprobs}
}

// form is how an endpoint puts answers into JSON.
type form interface {
	object(streamed bool) string
	// opening is the first chunk of a choice, before any text; nil if there is none.
	opening(c *choice) any
	// chunk is a further piece of a choice; end is set on the last.
	chunk(c *choice, d coordinator.Delta, end *coordinator.Answer) any
	// whole is the finished choice.
	whole(c *choice) any
	// promptIDs says whether the response itself carries the prompt's ids, or each choice does.
	promptIDs() bool
}

// plan lays out the choices of a job whose prompts are known.
func (j *job) plan() {
	for p := range j.prompts {
		for n := range j.choices {
			params := j.sampling
			params.Choice = uint32(n)
			j.answers = append(j.answers, &choice{
				index:  len(j.answers),
				prompt: &j.prompts[p],
				request: coordinator.Request{
					Prompt: j.prompts[p].ids, Sampling: params, MaxTokens: j.maxTokens, Stop: j.stop,
					IgnoreEOS: j.ignoreEOS, Logprobs: j.logprobs, Top: j.top,
				},
			})
		}
	}
}

// event is what happens to a job next: a choice's text, its end, a time without either, or the failure of it all. After the
// last without an error, every choice has ended.
type event struct {
	choice *choice
	delta  coordinator.Delta
	end    *coordinator.Answer
	idle   bool
	err    error // the last event
}

// events runs all choices, at most MaxParallel at a time, and yields what they give, each choice in order; after every
// interval without text or an end an idle one, if interval is not 0. No goroutine outlives the loop, however it is left.
func (g *Gateway) events(ctx context.Context, choices []*choice, interval time.Duration) iter.Seq[event] {
	return func(yield func(event) bool) {
		request := ctx
		ctx, cancel := context.WithCancel(ctx)
		events := make(chan event)
		var next atomic.Int64
		var workers sync.WaitGroup
		for range min(g.cfg.MaxParallel, len(choices)) {
			workers.Go(func() {
				for i := next.Add(1) - 1; i < int64(len(choices)); i = next.Add(1) - 1 {
					if !g.generate(ctx, choices[i], events) {
						return
					}
				}
			})
		}
		go func() {
			workers.Wait()
			close(events)
		}()
		defer func() {
			cancel()
			for range events { // until the workers are gone
			}
		}()

		var idle <-chan time.Time
		var timer *time.Timer
		if interval > 0 {
			timer = time.NewTimer(interval)
			defer timer.Stop()
			idle = timer.C
		}
		for left := len(choices); left > 0; {
			e := event{idle: true}
			select {
			case next, open := <-events:
				if e = next; !open {
					// A worker whose context has ended may not get its error through.
					e.err = fmt.Errorf("generate: %w", context.Cause(request))
				}
			case <-idle:
			}
			if e.end != nil {
				left--
			}
			if !yield(e) || e.err != nil {
				return
			}
			if timer != nil && (e.idle || e.end != nil || e.delta.Text != "") { // a token without text may tell the client nothing
				timer.Reset(interval)
			}
		}
	}
}

// generate runs one choice to its end and says whether it got there. A panic of the engine is that choice's failure.
func (g *Gateway) generate(ctx context.Context, c *choice, events chan<- event) (ok bool) {
	send := func(e event) error {
		select {
		case events <- e:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() {
		if r := recover(); r != nil {
			_ = send(event{err: fmt.Errorf("generate: panic: %v\n%s", r, debug.Stack())})
		}
	}()
	answer, err := g.cfg.Engine.Generate(ctx, c.request, func(d coordinator.Delta) error {
		return send(event{choice: c, delta: d})
	})
	if err != nil {
		_ = send(event{err: err})
		return false
	}
	return send(event{choice: c, end: &answer}) == nil
}
