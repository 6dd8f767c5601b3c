// Package pass holds the words that coordinator and shards say to each other: a Pass and its entries, what Load and
// Begin ask for, what comes back. It is neither side's: services/rpc turns these values into frames and back, the
// coordinator builds them, a shard runs them. It has no behaviour beyond checking itself.
package pass

import (
	"fmt"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
)

// Versions that two processes must share before they exchange anything else.
const (
	// Protocol is the version of the messages under proto/daisy/v1 and of what they mean.
	Protocol = 2
	// Numerics is the version of the arithmetic: equal numbers promise equal bits.
	Numerics = 1
)

// Bounds that every receiver checks before it believes a length.
const (
	MaxEntries    = 1024    // entries of a pass
	MaxStages     = 256     // stages of a route
	MaxCount      = 1 << 16 // positions of an entry
	MaxFrameBytes = 1 << 20 // payload of one frame
	MaxTop        = 20      // alternatives reported beside a token

	MaxResultBytes     = 1 << 30 // logits and hidden states of one result
	MaxTraceStateBytes = 512     // W3C asks for no less
)

// PlanID names a plan; plans are ordered by number, then leader.
type PlanID struct {
	Number uint64
	Leader string
}

func (p PlanID) String() string { return fmt.Sprintf("%d@%s", p.Number, p.Leader) }

// Stage is one place in a pipeline: a block's layers and the shard that runs them.
type Stage struct {
	Shard   string
	Address string // host:port
	Layers  model.Layers
}

// SequenceID names a sequence among those of its coordinator.
type SequenceID uint64

// Epoch counts the incarnations of a sequence, from 1.
type Epoch uint32

// Wants says what the last stage returns for an entry.
type Wants struct {
	Token    bool // sample after the entry's last position
	Logprobs bool // with the token: its log probability
	Top      int  // with Logprobs: so many alternatives, at most MaxTop
	Logits   bool // the logits after every position of the entry, (count, vocab)
	Hidden   bool // the last layer's output of every position, (count, hidden)
}

// Entry is one sequence's part of a pass.
type Entry struct {
	Sequence SequenceID
	Epoch    Epoch
	Turn     uint32         // the number of this entry within its epoch, from 0
	First    token.Position // at or below the cached length, which it truncates
	Count    int
	Tokens   []token.ID // count ids: the first stage embeds them, the last one's penalties look at them
	Wants    Wants
	Refused  *Refusal // set by the stage that would not run it; the entry then travels without rows
}

// Pass is one trip of a batch through a pipeline.
type Pass struct {
	Number      uint64 // counts the passes of a coordinator
	Coordinator string
	Plan        PlanID
	Route       []Stage // the stages still ahead; the first is the receiver's own
	TraceParent string  // W3C trace context
	TraceState  string

	// Replay, if it has layers, makes this a replay: each stage runs only its layers among these, for entries that begin where
	// those layers' caches end, and lets the entry pass if it has none of them. The first stage of the route takes the rows from
	// its activation log, or embeds the tokens if the layers begin at 0. Entries of a replay have no turn and want nothing.
	Replay  model.Layers
	Entries []Entry
	Rows    []float32 // (positions of the entries not refused, hidden); empty on the way to the first stage
}

// Positions is the number of rows that the entries not refused have together.
func (p *Pass) Positions() int {
	n := 0
	for i := range p.Entries {
		if p.Entries[i].Refused == nil {
			n += p.Entries[i].Count
		}
	}
	return n
}

// Reason is why an entry was refused.
type Reason uint8

const (
	ReasonUnknown    Reason = iota
	ReasonNoSequence        // the shard knows no such sequence: Begin did not come, or Release did
	ReasonStaleEpoch        // a newer epoch has begun
	ReasonGap               // the turn or the first position is beyond the next
	ReasonCacheFull         // no page left
	ReasonBadRequest        // counts, ids or positions out of bounds
	ReasonFault             // the stage failed while it computed
	ReasonPlan              // the shard holds no block of that plan
)

func (r Reason) String() string {
	names := [...]string{"unknown", "no such sequence", "stale epoch", "gap", "cache full", "bad request", "fault", "no such plan"}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Refusal says which stage refused an entry, and why.
type Refusal struct {
	Shard  string
	Reason Reason
	Detail string
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("shard %s refused an entry: %s: %s", r.Shard, r.Reason, r.Detail)
}

// Output is what an entry wanted.
type Output struct {
	Sequence SequenceID
	Epoch    Epoch
	Turn     uint32
	Refused  *Refusal
	Choice   *sample.Choice // with Wants.Token
	Logits   []float32      // (count, vocab), with Wants.Logits
	Hidden   []float32      // (count, hidden), with Wants.Hidden
}

// Result is what the last stage returns for a pass.
type Result struct {
	Number  uint64
	Plan    PlanID
	Outputs []Output // one an entry, in the pass's order
}

// Load asks a shard to hold a block.
type Load struct {
	Plan      PlanID
	Layers    model.Layers
	First     bool   // the block also holds the token embedding
	Last      bool   // the block also holds the final norm and the head
	Model     string // catalogue name or file name, for people
	SHA256    string // of the whole model file, hex
	Path      string // where the coordinator has the file; a shard on the same machine finds it there
	Bytes     int64  // size of the model file
	Root      string // of the list of its chunks' hashes, hex, for shards without the file; "": not told yet
	Context   int    // positions a sequence may have
	Parallel  int    // sequences that may be cached at once
	CacheType kvcache.Type
}

// LoadProgress is how far a Load has come.
type LoadProgress struct {
	Done, Total int64 // bytes of weights
}

// Begin opens an epoch of a sequence at a stage.
type Begin struct {
	Sequence SequenceID
	Epoch    Epoch
	Plan     PlanID
	Keep     token.Position // cached length to keep: from the epoch before, or what other sequences that began alike left behind
	Tokens   []token.ID     // of the positions kept: they name pages, and on the last stage penalties look at them
	Prompt   int            // how many of the sequence's tokens the client gave; the others were generated
	Sampling sample.Params  // for the last stage
}

// Begun is what a stage holds of a sequence when an epoch of it begins, at most Begin.Keep positions.
type Begun struct {
	Cached []Span // the block's layers in order, without a gap
	Logs   []Log  // in order
}

// Span is a range of layers that have equally many positions of a sequence in their caches.
type Span struct {
	Layers    model.Layers
	Positions token.Position
}

// Log is an activation log: the rows that enter a layer, for the positions from 0 to Positions.
type Log struct {
	Before    model.LayerIndex
	Positions token.Position
}

// Grant is the credit a shard gives one coordinator: what may be on its way through the shard at once.
type Grant struct {
	Passes int
	Bytes  int64
}

// Description is a shard's full truth about itself.
type Description struct {
	Name     string
	PID      int
	Address  string
	Version  string // of the binary
	Protocol uint32
	Numerics uint32
	Kernels  string
	Cores    int
	Memory   int64 // on offer, bytes
	State    string
	Passes   uint64 // computed since the start
	Blocks   []LoadedBlock
}

// LoadedBlock is one block that a shard holds.
type LoadedBlock struct {
	Plan      PlanID
	Layers    model.Layers
	Resident  int64 // bytes of weights and caches
	Model     string
	SHA256    string
	Sequences int   // cached in it
	Cached    int64 // bytes of pages that they hold
}
