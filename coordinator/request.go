package coordinator

import (
	"errors"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
)

// Errors that callers tell apart.
var (
	// ErrNotReady: no plan is loaded, or it was lost.
	ErrNotReady = errors.New("the cluster is not ready")
	// ErrBusy: admission is full; try again later.
	ErrBusy = errors.New("too many requests are waiting")
	// ErrTooLong: the prompt does not fit the context.
	ErrTooLong = errors.New("the prompt is longer than the context")
	// ErrInvalid: the request asks for what cannot be.
	ErrInvalid = errors.New("invalid request")
	// ErrLost: the pipeline of a generation was lost, and none came in its place.
	ErrLost = errors.New("a shard was lost")
)

// Request is what one generation is asked for.
type Request struct {
	Prompt    []token.ID
	Sampling  sample.Params
	MaxTokens int      // 0: as far as the context goes
	Stop      []string // ends the answer, which does not contain it
	IgnoreEOS bool     // go on past end-of-generation tokens
	Logprobs  bool
	Top       int // alternatives beside each token, with Logprobs
}

// Delta is the next piece of an answer. Text never ends inside a UTF-8 character, and never in what may become a stop
// string; so IDs may come ahead of their text.
type Delta struct {
	IDs      []token.ID
	Text     string
	Logprobs []sample.Choice // one an id, if asked for
}

// Finish is why a generation ended well.
type Finish string

const (
	FinishStop   Finish = "stop"   // an end-of-generation token, or a stop string
	FinishLength Finish = "length" // MaxTokens or the context is used up
)

// Answer is the end of a generation.
type Answer struct {
	Finish          Finish
	Stop            string // the stop string that ended it, if one did
	PromptTokens    int
	CachedTokens    int // of the prompt: every stage had them from sequences before
	GeneratedTokens int
}

// Status is a snapshot of the cluster, for people and tools.
type Status struct {
	Coordinator string        `json:"coordinator"`
	Version     string        `json:"version"`
	Model       string        `json:"model"`
	SHA256      string        `json:"sha256"`
	Context     int           `json:"context"`
	CacheType   string        `json:"cache_type"`
	State       string        `json:"state"` // waiting, loading, ready, recovering
	Detail      string        `json:"detail,omitempty"`
	Plan        string        `json:"plan,omitempty"`
	Layers      int           `json:"layers"`
	Active      int           `json:"active"`     // generations running
	Waiting     int           `json:"waiting"`    // generations not yet admitted
	Recovering  int           `json:"recovering"` // generations without a pipeline, or that are being replayed
	Moving      int           `json:"moving"`     // generations in pipelines that they shall leave, and will between two tokens
	Shards      []ShardStatus `json:"shards"`

	Pipelines []PipelineStatus `json:"pipelines"` // that work
}

// PipelineStatus is one pipeline of a Status: a shard for each stage.
type PipelineStatus struct {
	Shards      []string `json:"shards"`
	Generations int      `json:"generations"` // that run in it
}

// ShardStatus is one shard of a Status. First and Last are the block [first, last).
type ShardStatus struct {
	Name    string           `json:"name"`
	PID     int              `json:"pid"`
	Address string           `json:"address"`
	First   model.LayerIndex `json:"first"`
	Last    model.LayerIndex `json:"last"`
	State   string           `json:"state"` // joining, loading, ready, spare, draining, unreachable, unfit
	Detail  string           `json:"detail,omitempty"`
	Cores   int              `json:"cores"`
	Memory  int64            `json:"memory"`  // bytes on offer
	Planned int64            `json:"planned"` // bytes the plan needs of it
	Stage   int              `json:"stage"`   // place in its pipelines, from 0; -1: a spare

	Pipelines []int `json:"pipelines"` // of the plan that it is in, from 0
	Missing   int64 `json:"missing"`   // bytes that the others would lack to hold the model without it; 0: its loss is survivable
}
