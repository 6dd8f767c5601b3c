package coordinator

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
)

// errMove: the generation shall go on elsewhere, and may now.
var errMove = errors.New("the route shall be left")

// mayMove says whether a generation whose route shall be left may move now. One at a time does, while the others go on where
// they are: so each pauses for as long as its own move takes. Who may has to call move.
func (g *generation) mayMove() bool { return g.c.Ready() && g.c.moving.TryAcquire(1) }

// move takes the sequence to another route, between two tokens, and returns the token that is owed. The route before works,
// so there is nothing to wait for; where a move fails it is as if the route had been lost.
func (g *generation) move(ctx context.Context) (*sample.Choice, error) {
	defer g.c.moving.Release(1)
	ctx, span := g.c.cfg.Tracer.Start(ctx, "move", trace.WithAttributes(attribute.Int("daisy.positions", len(g.tokens)-1)))
	defer span.End()
	if _, _, changed := g.choose(false); changed != nil { // the other routes broke a moment ago
		return g.prompt(ctx, token.Position(len(g.tokens)-1))
	}
	span.SetAttributes(attribute.String("daisy.plan", g.route.plan.String()))
	began := time.Now()
	choice, err := g.start(ctx)
	g.c.cfg.Log.Debug("a generation has moved", "sequence", g.sequence, "plan", g.route.plan, "took", time.Since(began), "error", err)
	return choice, err
}
