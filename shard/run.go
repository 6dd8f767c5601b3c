package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// run computes one pass and hands it on.
func (s *Shard) run(ctx context.Context, j job) {
	p := j.pass
	h, stage := s.blocks[p.Plan], p.Route[0]
	span := s.span(ctx, j, stage)
	defer span.End()

	if h == nil || h.load.Layers != stage.Layers {
		s.refuseAll(p, pass.ReasonPlan, fmt.Sprintf("no block of plan %v with layers %v is loaded", p.Plan, stage.Layers))
		s.handOn(h, p)
		return
	}
	d := h.duty(p)
	if len(p.Rows) != d.positions*h.cfg.Hidden {
		s.refuseAll(p, pass.ReasonBadRequest, fmt.Sprintf("%d values came for %d positions of %d", len(p.Rows), d.positions, h.cfg.Hidden))
		s.handOn(h, p)
		return
	}
	s.admit(h, p, d)
	if len(h.entries) > 0 {
		if err := s.compute(h, p, d); err != nil {
			span.SetStatus(codes.Error, err.Error())
			s.refuseAll(p, pass.ReasonFault, err.Error())
		}
	}
	if p.Replay.Len() > 0 && p.Replay.Last <= h.load.Layers.Last { // nobody ahead has a use for the rows
		s.cfg.Rows.Put(p.Rows)
		p.Rows = nil
	}
	s.passes.Add(1)
	s.handOn(h, p)
}

// span opens the span of a pass at this stage, below the coordinator's. Without a trace context it costs nothing.
func (s *Shard) span(ctx context.Context, j job, stage pass.Stage) trace.Span {
	if j.pass.TraceParent == "" {
		return noop.Span{}
	}
	carrier := propagation.MapCarrier{"traceparent": j.pass.TraceParent, "tracestate": j.pass.TraceState}
	ctx = propagation.TraceContext{}.Extract(ctx, carrier)
	first := token.Position(0)
	if len(j.pass.Entries) > 0 {
		first = j.pass.Entries[0].First
	}
	_, span := s.cfg.Tracer.Start(ctx, "pass", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("daisy.shard", s.cfg.Name),
		attribute.String("daisy.layers", stage.Layers.String()),
		attribute.Int64("daisy.pass", int64(j.pass.Number)),
		attribute.Int("daisy.first_position", int(first)),
		attribute.Int("daisy.positions", j.pass.Positions()),
		attribute.Int64("daisy.queue_us", time.Since(j.received).Microseconds()),
	))
	return span
}

// admit checks every entry, refuses those that may not run, and fills h.entries and h.running with the others, unless they
// only go by. The pass's rows are theirs then: those that came with it, or, at the source, a buffer for them.
func (s *Shard) admit(h *held, p *pass.Pass, d duty) {
	hidden := h.cfg.Hidden
	h.entries, h.running = h.entries[:0], h.running[:0]
	kept, read := 0, 0 // rows
	for i := range p.Entries {
		e := &p.Entries[i]
		if e.Refused != nil {
			continue
		}
		q, reason, err := s.check(h, p, e, d)
		if err == nil && d.part.Len() > 0 {
			err = q.cache.ReserveIn(d.from, d.to, int(e.First), int(e.First)+e.Count)
			reason = pass.ReasonFault
			if errors.Is(err, kvcache.ErrFull) {
				reason = pass.ReasonCacheFull
			}
		}
		if err != nil {
			e.Refused = &pass.Refusal{Shard: s.cfg.Name, Reason: reason, Detail: err.Error()}
			read += e.Count
			continue
		}
		q.inPass = p.Number
		if p.Replay.Len() == 0 {
			q.advance(h, e)
		}
		if d.idle {
			continue
		}
		h.entries = append(h.entries, model.Entry{Cache: q.cache, First: e.First, Count: e.Count})
		h.running = append(h.running, q)
		if !d.source && kept != read {
			copy(p.Rows[kept*hidden:], p.Rows[read*hidden:(read+e.Count)*hidden])
		}
		kept += e.Count
		read += e.Count
	}
	if d.source {
		p.Rows = s.cfg.Rows.Get(kept * hidden)
	}
	p.Rows = p.Rows[:kept*hidden]
}

// advance notes an entry that is no replay: its epoch's next.
func (q *sequence) advance(h *held, e *pass.Entry) {
	q.turn++
	q.tokens = append(q.tokens[:e.First], e.Tokens...)
	q.cache.CloseLogs(int(h.load.Layers.Last)) // what had to be replayed has been
}

// check says whether an entry may run.
func (s *Shard) check(h *held, p *pass.Pass, e *pass.Entry, d duty) (*sequence, pass.Reason, error) {
	q := s.sequences[sequenceKey{p.Coordinator, e.Sequence}]
	switch {
	case q == nil || q.plan != p.Plan:
		return nil, pass.ReasonNoSequence, fmt.Errorf("sequence %d has not begun here under plan %v", e.Sequence, p.Plan)
	case e.Epoch != q.epoch:
		return nil, pass.ReasonStaleEpoch, fmt.Errorf("epoch %d, the sequence is in %d", e.Epoch, q.epoch)
	case p.Replay.Len() == 0 && e.Turn != q.turn:
		return nil, pass.ReasonGap, fmt.Errorf("turn %d, the next is %d", e.Turn, q.turn)
	case q.inPass == p.Number:
		return nil, pass.ReasonBadRequest, fmt.Errorf("sequence %d is in the pass twice", e.Sequence)
	case e.Count < 1 || e.First < 0 || int(e.First)+e.Count > h.load.Context:
		return nil, pass.ReasonBadRequest, fmt.Errorf("%d positions from %d in a context of %d", e.Count, e.First, h.load.Context)
	case len(e.Tokens) != e.Count:
		return nil, pass.ReasonBadRequest, fmt.Errorf("%d tokens for %d positions", len(e.Tokens), e.Count)
	case int(e.First) > q.cache.LenIn(d.from, d.to):
		return nil, pass.ReasonGap, fmt.Errorf("position %d, %d are cached", e.First, q.cache.LenIn(d.from, d.to))
	case p.Replay.Len() == 0 && int(e.First) > len(q.tokens):
		return nil, pass.ReasonGap, fmt.Errorf("position %d, the tokens of %d are known", e.First, len(q.tokens))
	case p.Replay.Len() > 0 && !q.knows(e):
		return nil, pass.ReasonBadRequest, fmt.Errorf("a replay of other tokens than the epoch began with, at positions from %d", e.First)
	case d.reads && !q.logged(p.Replay.First, int(e.First)+e.Count):
		return nil, pass.ReasonGap, fmt.Errorf("no log of %d positions that enter layer %d", int(e.First)+e.Count, p.Replay.First)
	}
	for _, id := range e.Tokens {
		if id < 0 || int(id) >= h.cfg.Vocab {
			return nil, pass.ReasonBadRequest, fmt.Errorf("token %d is not in the vocabulary of %d", id, h.cfg.Vocab)
		}
	}
	return q, 0, nil
}

// knows says whether an entry's tokens are those that the sequence has there.
func (q *sequence) knows(e *pass.Entry) bool {
	return int(e.First)+e.Count <= len(q.tokens) && slices.Equal(q.tokens[e.First:int(e.First)+e.Count], e.Tokens)
}

// compute runs the pass's layers over the admitted entries' rows, in place, and logs what leaves the block.
func (s *Shard) compute(h *held, p *pass.Pass, d duty) error {
	if d.source {
		if err := h.fetch(p, d); err != nil {
			return err
		}
	}
	if d.part.Len() > 0 {
		if err := h.block.ForwardIn(d.part, p.Rows, h.entries); err != nil {
			return err
		}
		h.log(p, d)
		h.keep()
	}
	s.steps.Add(uint64(d.part.Len()) + 1)
	return nil
}

// fetch gets the rows that the source of a pass starts from: the tokens' embeddings, or what has entered the first layer to
// replay before.
func (h *held) fetch(p *pass.Pass, d duty) error {
	at, running := 0, 0
	for i := range p.Entries {
		e := &p.Entries[i]
		if e.Refused != nil {
			continue
		}
		rows := p.Rows[at*h.cfg.Hidden : (at+e.Count)*h.cfg.Hidden]
		var err error
		if d.reads {
			err = h.running[running].log(p.Replay.First).Read(rows, int(e.First))
		} else {
			err = h.block.Embed(rows, e.Tokens)
		}
		if err != nil {
			return err
		}
		at += e.Count
		running++
	}
	return nil
}

// handOn sends a computed pass to its next stage, or its result to the coordinator.
func (s *Shard) handOn(h *held, p *pass.Pass) {
	p.Route = p.Route[1:]
	if len(p.Route) > 0 {
		s.cfg.Outlet.Forward(p)
		return
	}
	r := &pass.Result{Number: p.Number, Plan: p.Plan, Outputs: make([]pass.Output, len(p.Entries))}
	at, values := 0, 0
	for i := range p.Entries {
		e := &p.Entries[i]
		out := &r.Outputs[i]
		out.Sequence, out.Epoch, out.Turn, out.Refused = e.Sequence, e.Epoch, e.Turn, e.Refused
		if e.Refused != nil || p.Replay.Len() > 0 {
			continue
		}
		rows := p.Rows[at*h.cfg.Hidden : (at+e.Count)*h.cfg.Hidden]
		at += e.Count
		if values += valuesOf(h, e); values > pass.MaxResultBytes/4 {
			out.Refused = &pass.Refusal{Shard: s.cfg.Name, Reason: pass.ReasonBadRequest,
				Detail: fmt.Sprintf("the logits and hidden states asked for exceed %d MiB: ask for fewer positions at once", pass.MaxResultBytes>>20)}
			continue
		}
		if err := s.fill(h, p, e, rows, out); err != nil {
			out.Refused = &pass.Refusal{Shard: s.cfg.Name, Reason: pass.ReasonFault, Detail: err.Error()}
		}
	}
	coordinator := p.Coordinator
	s.cfg.Rows.Put(p.Rows)
	s.cfg.Outlet.Return(coordinator, r)
}

// valuesOf is how many float32 values an entry wants beside its token.
func valuesOf(h *held, e *pass.Entry) int {
	n := 0
	if e.Wants.Logits {
		n += e.Count * h.cfg.Vocab
	}
	if e.Wants.Hidden {
		n += e.Count * h.cfg.Hidden
	}
	return n
}

// fill computes what an entry wants from its rows, (count, hidden).
func (s *Shard) fill(h *held, p *pass.Pass, e *pass.Entry, rows []float32, out *pass.Output) error {
	if (e.Wants.Token || e.Wants.Logits) && !h.load.Last {
		return errors.New("the last stage of the route holds no head")
	}
	hidden, vocab := h.cfg.Hidden, h.cfg.Vocab
	if e.Wants.Hidden {
		out.Hidden = append([]float32(nil), rows...)
	}
	if e.Wants.Logits {
		out.Logits = make([]float32, e.Count*vocab)
		for from := 0; from < e.Count; from += MaxHeadRows {
			to := min(from+MaxHeadRows, e.Count)
			h.block.Head(out.Logits[from*vocab:to*vocab], rows[from*hidden:to*hidden])
		}
	}
	if !e.Wants.Token {
		return nil
	}
	h.block.Head(h.logits, rows[(e.Count-1)*hidden:])
	q := s.sequences[sequenceKey{p.Coordinator, e.Sequence}]
	choice, err := h.sampler.Sample(&sample.Request{
		Logits:   h.logits,
		Params:   &q.params,
		Tokens:   q.tokens,
		Prompt:   min(q.prompt, len(q.tokens)),
		Logprobs: e.Wants.Logprobs,
		Top:      e.Wants.Top,
	})
	if err != nil {
		return err
	}
	out.Choice = &choice
	return nil
}

// refuseAll refuses every entry that is not refused yet.
func (s *Shard) refuseAll(p *pass.Pass, reason pass.Reason, detail string) {
	for i := range p.Entries {
		if p.Entries[i].Refused == nil {
			p.Entries[i].Refused = &pass.Refusal{Shard: s.cfg.Name, Reason: reason, Detail: detail}
		}
	}
	p.Rows = p.Rows[:0]
}
