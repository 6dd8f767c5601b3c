package pass

import (
	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
)

// Copy asks a shard, where an epoch of a sequence has begun, to fetch from another living one what that has cached of it: in
// layers of the block, from where each of them ends here, and, if they reach the block's end, the activation log of what
// leaves it. The bits are those that computing gives.
type Copy struct {
	Sequence SequenceID
	Epoch    Epoch // of the shard that fetches; the other may be in an earlier one
	Layers   model.Layers
	Shard    string         // that has them
	Address  string         // host:port
	To       token.Position // the positions below: those of which the sequence's tokens are certain
}

// Pages is what a shard asks of another for a Copy.
type Pages struct {
	Coordinator string
	Sequence    SequenceID
	Epoch       Epoch // the other's must not be above
	SHA256      string
	Context     int
	CacheType   kvcache.Type
	Lacking     []Span // layers in order, without a gap, and from which position on they are lacking
	Log         Log    // the log that is lacking as well, and from which position on; none if it is before layer 0
	To          token.Position
}

// Piece is one piece of an answer to Pages: some positions of one layer's cache, or of the log.
type Piece struct {
	Log   bool             // of the rows that enter Layer; else of its cache
	Layer model.LayerIndex // absolute
	First token.Position
	Count int
	// Words is what the pages hold, (count, words of a position), whatever type it has.
	Words []float32
}
