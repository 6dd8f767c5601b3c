package shard

import (
	"context"
	"fmt"

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
	tokens []token.ID // of the cached positions; on the last stage only
	prompt int        // how many of tokens the client gave
	params sample.Params
	inPass uint64 // number of the pass that it was last part of, to find it twice in one
}

// Begin opens an epoch of a sequence: the cache keeps begin.Keep positions of the epoch before, the next entry is turn
// 0. An epoch that is not above the last one is refused.
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
	if err := begin.Sampling.Validate(h.cfg.Vocab); err != nil {
		return pass.Begun{}, err
	}
	if begin.Prompt < 0 || begin.Prompt > h.load.Context {
		return pass.Begun{}, fmt.Errorf("a prompt of %d tokens in a context of %d", begin.Prompt, h.load.Context)
	}
	if h.load.Last && len(begin.Tokens) != int(begin.Keep) {
		return pass.Begun{}, fmt.Errorf("%d tokens for %d positions kept", len(begin.Tokens), begin.Keep)
	}
	for _, id := range begin.Tokens {
		if id < 0 || int(id) >= h.cfg.Vocab {
			return pass.Begun{}, fmt.Errorf("token %d is not in the vocabulary of %d", id, h.cfg.Vocab)
		}
	}
	q := s.sequences[key]
	switch {
	case q == nil:
		if begin.Keep != 0 {
			return pass.Begun{}, fmt.Errorf("keep %d positions of a sequence that is not cached", begin.Keep)
		}
		if h.sequences >= h.load.Parallel {
			return pass.Begun{}, fmt.Errorf("%d sequences are cached already, as many as the plan allows", h.sequences)
		}
		h.sequences++
		q = &sequence{cache: h.pool.NewSequence(h.load.Layers.Len())}
		s.sequences[key] = q
	case begin.Epoch <= q.epoch:
		return pass.Begun{}, fmt.Errorf("epoch %d has begun already", q.epoch)
	case q.plan != begin.Plan:
		return pass.Begun{}, fmt.Errorf("the sequence is cached under plan %v, not %v", q.plan, begin.Plan)
	case int(begin.Keep) > q.cache.Len():
		return pass.Begun{}, fmt.Errorf("keep %d positions of %d cached", begin.Keep, q.cache.Len())
	}
	q.cache.Truncate(int(begin.Keep))
	q.epoch, q.plan, q.turn = begin.Epoch, begin.Plan, 0
	q.prompt, q.params = begin.Prompt, begin.Sampling
	if h.load.Last {
		q.tokens = append(make([]token.ID, 0, h.load.Context), begin.Tokens...)
	}
	begun := pass.Begun{}
	if h.load.Layers.Len() > 0 {
		begun.Cached = []pass.Span{{Layers: h.load.Layers, Positions: begin.Keep}}
	}
	return begun, nil
}

// Release frees a sequence's caches; one that is not there is no error.
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
	if h := s.blocks[q.plan]; h != nil {
		h.sequences--
	}
	delete(s.sequences, key)
}
