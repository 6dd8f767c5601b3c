package shard

import (
	"context"
	"fmt"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// sequenceKey tells the sequences of several coordinators apart.
type sequenceKey struct {
	coordinator string
	id          pass.SequenceID
}

// sequence is one sequence's state at this stage.
type sequence struct {
	epoch  pass.Epoch
	plan   pass.PlanID
	turn   uint32 // of the next entry
	cache  *kvcache.Sequence
	tokens []token.ID // of the cached positions, and perhaps of some beyond
	prompt int        // how many of tokens the client gave
	params sample.Params
	inPass uint64 // number of the pass that it was last part of, to find it twice in one
}

// log finds the log of the rows that enter a layer, nil if there is none.
func (q *sequence) log(before model.LayerIndex) *kvcache.Log { return q.cache.Log(int(before)) }

// Begin opens an epoch of a sequence, perhaps under another plan than the last: of what is cached in the layers of the plan's
// block, by the sequence itself or by others that began alike, it keeps at most begin.Keep positions, and returns what that
// is; the next entry is turn 0. An epoch that is not above the last one is refused.
func (s *Shard) Begin(ctx context.Context, coordinator string, begin pass.Begin) (begun pass.Begun, err error) {
	if e := s.do(ctx, func() { begun, err = s.begin(sequenceKey{coordinator, begin.Sequence}, begin) }); e != nil {
		err = e
	}
	if err != nil {
		return pass.Begun{}, fmt.Errorf("begin epoch %d of sequence %d: %w", begin.Epoch, begin.Sequence, err)
	}
	return begun, nil
}

func (s *Shard) begin(key sequenceKey, begin pass.Begin) (pass.Begun, error) {
	h := s.blocks[begin.Plan]
	if h == nil {
		return pass.Begun{}, fmt.Errorf("no block of plan %v is loaded", begin.Plan)
	}
	if err := checkBegin(h, begin); err != nil {
		return pass.Begun{}, err
	}
	q := s.sequences[key]
	if q != nil && begin.Epoch <= q.epoch {
		return pass.Begun{}, fmt.Errorf("epoch %d has begun already", q.epoch)
	}
	if q != nil && s.blocks[q.plan].holding != h.holding { // of another model: nothing of it is of use
		s.free(key)
		q = nil
	}
	switch {
	case q == nil:
		if h.holding.sequences >= h.load.Parallel {
			return pass.Begun{}, fmt.Errorf("%d sequences are cached already, as many as the plan allows", h.holding.sequences)
		}
		q = &sequence{cache: h.newCache()}
		h.holding.sequences++
		h.sequences++
		s.sequences[key] = q
	case q.plan != begin.Plan:
		s.move(q, h)
	}
	q.cache.Truncate(common(q.tokens, begin.Tokens)) // what is named below must be what the tokens say
	q.epoch, q.plan, q.turn = begin.Epoch, begin.Plan, 0
	q.prompt, q.params = begin.Prompt, begin.Sampling
	q.tokens = append(make([]token.ID, 0, h.load.Context), begin.Tokens...)
	if logs(h.load) {
		q.cache.OpenLog(int(h.load.Layers.Last))
	}
	q.cache.Find(q.tokens)
	return q.begun(h), nil
}

// common is how many tokens two lists begin with alike.
func common(a, b []token.ID) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// checkBegin believes nothing that a coordinator says.
func checkBegin(h *held, begin pass.Begin) error {
	if err := begin.Sampling.Validate(h.cfg.Vocab); err != nil {
		return err
	}
	switch {
	case begin.Prompt < 0 || begin.Prompt > h.load.Context:
		return fmt.Errorf("a prompt of %d tokens in a context of %d", begin.Prompt, h.load.Context)
	case begin.Keep < 0 || int(begin.Keep) > h.load.Context:
		return fmt.Errorf("keep %d positions in a context of %d", begin.Keep, h.load.Context)
	case len(begin.Tokens) != int(begin.Keep):
		return fmt.Errorf("%d tokens for %d positions kept", len(begin.Tokens), begin.Keep)
	}
	for _, id := range begin.Tokens {
		if id < 0 || int(id) >= h.cfg.Vocab {
			return fmt.Errorf("token %d is not in the vocabulary of %d", id, h.cfg.Vocab)
		}
	}
	return nil
}

// move brings a sequence from another plan's block to this one: the layers that both have keep what is cached, and of the
// logs stay those from which a layer in the block, or the next one, can be computed.
func (s *Shard) move(q *sequence, h *held) {
	old := s.blocks[q.plan]
	old.sequences--
	h.sequences++
	cache := h.newCache()
	cache.Inherit(q.cache)
	q.cache = cache
}

// newCache makes an empty sequence for the block.
func (h *held) newCache() *kvcache.Sequence {
	return h.holding.pool.NewSequenceAt(int(h.load.Layers.First), h.load.Layers.Len())
}

// begun says what the stage holds of a sequence.
func (q *sequence) begun(h *held) pass.Begun {
	var b pass.Begun
	first := h.load.Layers.First
	for l := range h.load.Layers.Len() {
		layers := model.Layers{First: first + model.LayerIndex(l), Last: first + model.LayerIndex(l) + 1}
		positions := token.Position(q.cache.LenIn(l, l+1))
		if n := len(b.Cached); n > 0 && b.Cached[n-1].Positions == positions {
			b.Cached[n-1].Layers.Last = layers.Last
			continue
		}
		b.Cached = append(b.Cached, pass.Span{Layers: layers, Positions: positions})
	}
	for _, l := range q.cache.Logs() {
		if l.Len() > 0 {
			b.Logs = append(b.Logs, pass.Log{Before: model.LayerIndex(l.Before()), Positions: token.Position(l.Len())})
		}
	}
	return b
}

// Release ends a sequence: what is cached of whole pages stays for others that begin alike, as long as there is room. One
// that is not there is no error.
func (s *Shard) Release(ctx context.Context, coordinator string, id pass.SequenceID) error {
	return s.do(ctx, func() { s.free(sequenceKey{coordinator, id}) })
}

// Drop frees every sequence of a coordinator whose control stream has ended.
func (s *Shard) Drop(ctx context.Context, coordinator string) error {
	return s.do(ctx, func() {
		for key := range s.sequences {
			if key.coordinator == coordinator {
				s.free(key)
			}
		}
	})
}

func (s *Shard) free(key sequenceKey) {
	q := s.sequences[key]
	if q == nil {
		return
	}
	q.cache.Free()
	h := s.blocks[q.plan] // an Unload frees the sequences first
	h.sequences--
	h.holding.sequences--
	delete(s.sequences, key)
}
