package coordinator

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// remains is what the stages of a pipeline hold of a sequence after a loss: how far each layer is cached, and the logs of what
// entered layers.
type remains struct {
	stages []model.Layers
	cached []token.Position // by layer
	logs   [][]pass.Log     // by stage
}

// fill is a range of layers that lack the same positions, and the stage from which they can be had: the first, which embeds
// tokens, or one that has the log before them.
type fill struct {
	layers model.Layers
	stage  int
}

// remainsOf puts together what the stages say. A stage that does not account for each layer of its block, once, counts as one
// that holds nothing; nobody is believed to hold more positions than were kept.
func remainsOf(stages []model.Layers, begun []pass.Begun, keep token.Position) *remains {
	r := &remains{stages: stages, logs: make([][]pass.Log, len(stages))}
	for i, block := range stages {
		from := len(r.cached)
		next := block.First
		for _, span := range begun[i].Cached {
			if span.Layers.First != next || span.Layers.Last <= next || span.Layers.Last > block.Last || span.Positions < 0 {
				break
			}
			for ; next < span.Layers.Last; next++ {
				r.cached = append(r.cached, min(span.Positions, keep))
			}
		}
		if next != block.Last {
			r.cached = append(r.cached[:from], make([]token.Position, block.Len())...)
			continue
		}
		for _, l := range begun[i].Logs {
			if l.Before >= block.First && l.Before <= block.Last {
				r.logs[i] = append(r.logs[i], pass.Log{Before: l.Before, Positions: min(l.Positions, keep)})
			}
		}
	}
	return r
}

// least is how far all layers are cached: ordinary passes may go on there.
func (r *remains) least() token.Position {
	if len(r.cached) == 0 {
		return 0
	}
	return slices.Min(r.cached)
}

// step finds the layers that are cached least far, and how far they can be filled in before others are needed as well. It
// gives none if all layers are cached equally far, or if what they need is nowhere: then the others have to follow from
// there too.
func (r *remains) step() (from, to token.Position, fills []fill) {
	from = r.least()
	to = from
	for _, c := range r.cached {
		if c > from && (to == from || c < to) {
			to = c
		}
	}
	if to == from {
		return from, from, nil
	}
	for l := 0; l < len(r.cached); l++ {
		if r.cached[l] > from {
			continue
		}
		f := fill{layers: model.Layers{First: model.LayerIndex(l)}}
		for l < len(r.cached) && r.cached[l] == from {
			l++
		}
		f.layers.Last = model.LayerIndex(l)
		if f.stage = r.source(f.layers.First, to); f.stage < 0 {
			return from, from, nil
		}
		fills = append(fills, f)
	}
	return from, to, fills
}

// source is the stage that has what enters a layer, -1 if none has.
func (r *remains) source(layer model.LayerIndex, positions token.Position) int {
	if layer == 0 {
		return 0
	}
	for i := len(r.logs) - 1; i >= 0; i-- {
		for _, l := range r.logs[i] {
			if l.Before == layer && l.Positions >= positions {
				return i
			}
		}
	}
	return -1
}

// filled notes that a step is done.
func (r *remains) filled(to token.Position, fills []fill) {
	for _, f := range fills {
		for l := f.layers.First; l < f.layers.Last; l++ {
			r.cached[l] = to
		}
	}
}

// replay brings the layers that have lost positions of the sequence up to those that have not, as far as what they need is
// still there, and returns the position from which ordinary passes go on. Nothing that survives is computed twice.
func (g *generation) replay(ctx context.Context, r *remains) (token.Position, error) {
	if len(r.cached) == 0 {
		return 0, nil
	}
	for {
		from, to, fills := r.step()
		if len(fills) == 0 {
			return from, nil
		}
		if err := g.fill(ctx, from, to, fills); err != nil {
			return 0, err
		}
		r.filled(to, fills)
	}
}

// fill replays positions in layers that lack them. The next step reads logs that this one writes, so it waits for all.
func (g *generation) fill(ctx context.Context, from, to token.Position, fills []fill) error {
	ctx, span := g.c.cfg.Tracer.Start(ctx, "replay", trace.WithAttributes(
		attribute.Int("daisy.first_position", int(from)), attribute.Int("daisy.positions", int(to-from)), attribute.Int("daisy.epoch", int(g.epoch)),
	))
	defer span.End()
	p := g.route.pipeline
	chunk := token.Position(min(promptChunk, p.MaxPositions()))
	var flying []*pipeline.Ticket
	for _, f := range fills {
		for first := from; first < to; first += chunk {
			last := min(first+chunk, to)
			e := pass.Entry{Sequence: g.sequence, Epoch: g.epoch, First: first, Count: int(last - first), Tokens: g.tokens[first:last:last]}
			t, err := p.Replay(ctx, traceOf(ctx), f.layers, f.stage, []pass.Entry{e})
			if err != nil {
				return err
			}
			if flying = append(flying, t); len(flying) > p.Stages() {
				if _, err := g.receive(ctx, flying[0]); err != nil {
					return err
				}
				flying = flying[1:]
			}
		}
	}
	for _, t := range flying {
		if _, err := g.receive(ctx, t); err != nil {
			return err
		}
	}
	return nil
}
