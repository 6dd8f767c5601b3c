package shard_test

import (
	"slices"
	"testing"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
	"github.com/daisy-llm/daisy/shard"
)

// opened begins an epoch of a sequence with its tokens, and returns how many are cached.
func opened(t *testing.T, s *shard.Shard, id pass.SequenceID, epoch pass.Epoch, ids []token.ID) int {
	t.Helper()
	b, err := s.Begin(t.Context(), "c", pass.Begin{Sequence: id, Epoch: epoch, Plan: planID, Keep: token.Position(len(ids)), Tokens: ids})
	if err != nil || len(b.Cached) != 1 {
		t.Fatalf("%+v, %v", b, err)
	}
	return int(b.Cached[0].Positions)
}

// TestOnlyTokensNamePages: a coordinator that says of cached positions that other tokens were there has them computed again;
// nobody ever finds them under the wrong name.
func TestOnlyTokensNamePages(t *testing.T) {
	s, w, run := start(t, nil)
	run()
	l := whole(planID)
	l.Context = 256
	load(t, s, l)
	ids := make([]token.ID, 140)
	for i := range ids {
		ids[i] = token.ID(3 + i%50)
	}
	other := slices.Clone(ids)
	other[70]++
	number := uint64(0)
	do := func(id pass.SequenceID, epoch pass.Epoch, turn uint32, first int, tokens []token.ID, replay model.Layers) *pass.Refusal {
		t.Helper()
		p := step("c", id, turn, tokens...)
		number++
		p.Number, p.Replay, p.Entries[0].First, p.Entries[0].Epoch = number, replay, token.Position(first), epoch
		if replay.Len() > 0 {
			p.Entries[0].Wants = pass.Wants{}
		}
		if err := s.Submit(p); err != nil {
			t.Fatal(err)
		}
		return (<-w.results).Outputs[0].Refused
	}
	all := model.Layers{Last: 4}
	if n := opened(t, s, 1, 1, ids[:130]); n != 0 {
		t.Errorf("%d positions are cached of nothing", n)
	}
	if r := do(1, 1, 0, 0, other[:130], all); r == nil || r.Reason != pass.ReasonBadRequest {
		t.Errorf("a replay of other tokens: %v", r)
	}
	if r := do(1, 1, 0, 0, ids[:131], all); r == nil || r.Reason != pass.ReasonBadRequest {
		t.Errorf("a replay of more tokens than are known: %v", r)
	}
	if r := do(1, 1, 0, 0, ids[:100], all); r != nil {
		t.Fatal(r)
	}
	if r := do(1, 1, 0, 100, ids[100:], model.Layers{}); r != nil {
		t.Fatal(r)
	}
	if n := opened(t, s, 1, 2, other[:135]); n != 70 {
		t.Errorf("of 140 positions %d are kept under tokens of which the first 70 are theirs", n)
	}
	if n := opened(t, s, 2, 1, other); n != 64 {
		t.Errorf("%d positions are cached of what begins alike for 70", n)
	}
	if r := do(1, 2, 0, 70, other[70:], model.Layers{}); r != nil {
		t.Fatal(r)
	}
	for i, c := range []struct {
		tokens []token.ID
		want   int
	}{{other, 128}, {ids, 64}} { // the second page of ids is where the sequence has gone on otherwise
		id := pass.SequenceID(i + 1)
		if err := s.Release(t.Context(), "c", id); err != nil {
			t.Fatal(err)
		}
		if n := opened(t, s, id, 3, c.tokens); n != c.want {
			t.Errorf("%d positions are cached of sequence %d, want %d", n, id, c.want)
		}
	}
	for id := range pass.SequenceID(3) {
		if err := s.Release(t.Context(), "c", id); err != nil {
			t.Fatal(err)
		}
	}
	blocks, _, err := s.Blocks(t.Context())
	if err != nil || blocks[0].Cached != 0 {
		t.Errorf("%+v, %v", blocks, err)
	}
	if _, err := s.Begin(t.Context(), "c", pass.Begin{Sequence: 3, Epoch: 1, Plan: planID, Keep: 2, Tokens: ids[:1]}); err == nil {
		t.Error("an epoch that keeps two positions begins with one token")
	}
}
