package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/pass"
)

// A generation whose pipeline is whole, but whose epoch is not, may try again so often in a row, the longer apart the
// oftener: a shard may have lost sequences with a link whose end has not been seen here yet. What fails more often has
// another reason, and is an error.
const (
	maxAttempts  = 5
	attemptPause = 50 * time.Millisecond
)

// maxLosses is how many pipelines a sequence may lose in a row none of which has come further with it than one before: a
// shard may die of the sequence itself.
const maxLosses = 20

// isLoss says whether an error means that a generation must go on in another epoch, rather than end.
func isLoss(err error) bool {
	var refused *pass.Refusal
	var begin *beginError
	switch {
	case errors.Is(err, pipeline.ErrBroken):
		return true
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &refused):
		switch refused.Reason {
		case pass.ReasonNoSequence, pass.ReasonPlan, pass.ReasonStaleEpoch, pass.ReasonGap:
			return true // the shard had it, or an entry that came before: something was lost on the way
		}
		return false
	}
	return errors.As(err, &begin)
}

// recover gives the sequence a new epoch in a pipeline that works, replays its tokens there, and returns the token that is
// owed. It waits for older sequences to recover first, and for such a pipeline up to Config.RecoveryTimeout: from the loss, or
// from when a shard last computed something for it, without the time that older ones took. Pipelines may break meanwhile, but no
// more than maxLosses without getting further.
func (g *generation) recover(ctx context.Context, loss error) (choice *sample.Choice, err error) {
	ctx, span := g.c.cfg.Tracer.Start(ctx, "recover")
	defer span.End()
	g.c.recovering.enter(g.sequence)
	defer g.c.recovering.leave(g.sequence)
	until := time.Now().Add(g.c.cfg.RecoveryTimeout)
	furthest, losses := 0, 0
	for attempt := 0; ; {
		if !g.route.works() {
			attempt = 0
		} else if attempt++; attempt > maxAttempts {
			return nil, fmt.Errorf("%w, and %d new epochs in a row failed: %w", ErrLost, maxAttempts, loss)
		} else if err := g.pause(ctx, attemptPause<<attempt); err != nil {
			return nil, err
		}
		for first := false; !first; first = g.c.recovering.first(g.sequence) { // an older one may have come while this one waited
			asked := time.Now()
			if err := g.c.recovering.turn(ctx, g.sequence); err != nil {
				return nil, err
			}
			until = until.Add(time.Since(asked))
			err := g.enter(ctx, until)
			switch {
			case ctx.Err() != nil:
				return nil, context.Cause(ctx)
			case err != nil:
				return nil, fmt.Errorf("%w, and none took its place within %v (%v): %w", ErrLost, g.c.cfg.RecoveryTimeout, err, loss)
			}
		}
		results := g.results
		if choice, err = g.start(ctx); err == nil || !isLoss(err) {
			return choice, err
		}
		loss = err
		came := g.results - results
		if came > 0 {
			until = time.Now().Add(g.c.cfg.RecoveryTimeout)
		}
		if losses++; came > furthest {
			furthest, losses = came, 0
		}
		if losses > maxLosses {
			return nil, fmt.Errorf("%w, and so were %d in its place before they came further: %w", ErrLost, losses, loss)
		}
	}
}

// pause waits, but not for a pipeline that has broken.
func (g *generation) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-g.route.pipeline.Broken():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// order lets sequences recover in the order of their age, one at a time: the oldest answers again first, instead of all
// answering late. Sequences are numbered by age. The zero value is ready.
type order struct {
	mu      sync.Mutex
	waiting map[pass.SequenceID]struct{}
	changed chan struct{} // closed and replaced when one leaves
}

func (o *order) enter(id pass.SequenceID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting == nil {
		o.waiting, o.changed = make(map[pass.SequenceID]struct{}), make(chan struct{})
	}
	o.waiting[id] = struct{}{}
}

func (o *order) leave(id pass.SequenceID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.waiting, id)
	close(o.changed)
	o.changed = make(chan struct{})
}

// turn waits until no older sequence recovers.
func (o *order) turn(ctx context.Context, id pass.SequenceID) error {
	for {
		o.mu.Lock()
		changed := o.changed
		o.mu.Unlock()
		if o.first(id) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// first says whether no older sequence recovers.
func (o *order) first(id pass.SequenceID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for other := range o.waiting {
		if other < id {
			return false
		}
	}
	return true
}

// count is how many sequences recover.
func (o *order) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.waiting)
}
