package pipeline

import (
	"context"
	"errors"

	"github.com/daisy-llm/daisy/pass"
)

// Errors that callers branch on.
var (
	// ErrBroken: a hop of the pipeline died; what was on its way is lost.
	ErrBroken = errors.New("the pipeline is broken")
	// ErrVersion: the shard speaks another version of the protocol or of the arithmetic.
	ErrVersion = errors.New("versions differ")
	// ErrModel: the shard has another model file, or none.
	ErrModel = errors.New("the model file differs")
	// ErrMemory: the block does not fit the shard.
	ErrMemory = errors.New("not enough memory")
)

// A Hop is a live link to a shard. Its methods may be called at once from several goroutines; after Done is closed they
// fail with an error that wraps ErrBroken. A shard may carry out at once, and in any order, what was asked of it before the
// former has returned; only an Unload finds every Load sent before it. services/rpc implements it over gRPC, tests by script.
type Hop interface {
	// Shard is the name of the shard at the other end.
	Shard() string
	// Load has the shard hold a block; it reports progress until it returns.
	Load(ctx context.Context, load pass.Load, progress func(pass.LoadProgress)) error
	// Unload frees a plan's block.
	Unload(ctx context.Context, plan pass.PlanID) error
	// Begin opens an epoch of a sequence; it returns when the shard has done so, and what the shard holds of it.
	Begin(ctx context.Context, begin pass.Begin) (pass.Begun, error)
	// Release frees a sequence's caches; it returns when the shard has done so.
	Release(ctx context.Context, sequence pass.SequenceID) error
	// Describe asks the shard for its own account of itself.
	Describe(ctx context.Context) (pass.Description, error)
	// Grant is what may be on its way through the shard at once.
	Grant() pass.Grant
	// Send gives the shard a pass of which it is the first stage. It does not wait for the pass to be computed.
	Send(p *pass.Pass) error
	// Results opens the stream of what the shard computes as a last stage: receive is called with each result, in order,
	// until ctx ends or the hop dies.
	Results(ctx context.Context, receive func(*pass.Result)) error
	// Done is closed when the hop has died; Err then says why.
	Done() <-chan struct{}
	Err() error
}
