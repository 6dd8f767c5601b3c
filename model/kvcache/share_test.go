package kvcache

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/daisy-llm/daisy/model/token"
)

// chat is a sequence whose pages and logs say which tokens they were computed from.
type chat struct {
	t      *testing.T
	s      *Sequence
	tokens []token.ID
	log    int // the layer whose entering rows are kept; -1: none
}

// digests stand for what a layer has stored of each position: each depends on all tokens so far.
func digests(layer int, tokens []token.ID) []uint64 {
	all := make([]uint64, len(tokens))
	d := uint64(layer + 1000)
	for i, id := range tokens {
		d = (d ^ uint64(id+1)) * 0x9e3779b97f4a7c15
		d ^= d >> 29
		all[i] = d
	}
	return all
}

const logWidth = 2

// logRows is what enters a layer.
func logRows(layer int, tokens []token.ID) (rows []float32) {
	for _, d := range digests(-layer-1, tokens) {
		rows = append(rows, float32(d&0xffff), float32(d>>16&0xffff))
	}
	return rows
}

// sharing is a pool with logs, of so many pages of each.
func sharing(t testing.TB, pages, logPages int) *Pool {
	p := newPool(t, pages)
	logs, err := p.NewLogPool(logWidth, int64(logPages)*LogBytes(logWidth, 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { logs.Close() })
	return p
}

// begin makes a sequence of the layers [first, last) that keeps a log of what leaves them, and finds what there is of it.
func begin(t *testing.T, p *Pool, first, last int, tokens []token.ID) *chat {
	c := &chat{t: t, s: p.NewSequenceAt(first, last-first), tokens: slices.Clone(tokens), log: last}
	c.s.OpenLog(last)
	c.s.Find(tokens)
	return c
}

// run stores the tokens' positions from first on in the layers [from, to) of the block, and keeps what is whole.
func (c *chat) run(from, to, first int, tokens ...token.ID) error {
	if err := c.s.ReserveIn(from, to, first, first+len(tokens)); err != nil {
		return err
	}
	c.tokens = append(c.tokens[:first:first], tokens...)
	for l := from; l < to; l++ {
		for at, d := range digests(c.s.first+l, c.tokens) {
			if at >= first {
				binary.LittleEndian.PutUint64(c.s.Pages(l)[at/PagePositions][at%PagePositions*8:], d)
			}
		}
	}
	c.s.AdvanceIn(from, to, len(c.tokens))
	if l := c.s.Log(c.log); l != nil && to == c.s.Layers() && l.Len() >= first {
		if err := l.Write(first, logRows(c.log, c.tokens)[first*logWidth:]); err != nil {
			l.Free()
		}
	}
	c.s.Keep(c.tokens)
	return nil
}

// say is run for a whole block.
func (c *chat) say(first int, tokens ...token.ID) {
	c.t.Helper()
	if err := c.run(0, c.s.Layers(), first, tokens...); err != nil {
		c.t.Fatal(err)
	}
}

// check looks at everything that the sequence has stored.
func (c *chat) check() {
	c.t.Helper()
	for l := range c.s.Layers() {
		want := digests(c.s.first+l, c.tokens)
		for at := range c.s.LenIn(l, l+1) {
			page := c.s.Pages(l)[at/PagePositions]
			if binary.LittleEndian.Uint64(page[at%PagePositions*8:]) != want[at] {
				c.t.Fatalf("layer %d has something else at position %d", c.s.first+l, at)
			}
		}
	}
	for _, l := range c.s.Logs() {
		rows := make([]float32, l.Len()*logWidth)
		if err := l.Read(rows, 0); err != nil {
			c.t.Fatal(err)
		}
		if !slices.Equal(rows, logRows(l.Before(), c.tokens[:l.Len()])) {
			c.t.Fatalf("the log before layer %d has something else", l.Before())
		}
	}
}

// count gives so many tokens from one on.
func count(from token.ID, n int) []token.ID {
	ids := make([]token.ID, n)
	for i := range ids {
		ids[i] = from + token.ID(i)
	}
	return ids
}

func (c *chat) expect(what string, positions ...int) {
	c.t.Helper()
	for l, want := range positions {
		if got := c.s.LenIn(l, l+1); got != want {
			c.t.Errorf("%s: layer %d has %d positions, not %d", what, c.s.first+l, got, want)
		}
	}
	c.check()
}

// TestFind: a sequence finds the whole pages of what another one began with, and nothing else.
func TestFind(t *testing.T) {
	const tile = PagePositions
	p := sharing(t, 100, 100)
	ids := count(0, 3*tile+5)
	a := begin(t, p, 0, 2, ids)
	a.expect("an empty pool", 0, 0)
	a.say(0, ids[:70]...)
	a.say(70, ids[70:]...)
	used := p.Used()
	b := begin(t, p, 0, 2, ids)
	b.expect("beside the first", 3*tile, 3*tile)
	if p.Used() != used || b.s.Log(2).Len() != 3*tile {
		t.Errorf("%d bytes are used, before it was %d; the log has %d positions", p.Used(), used, b.s.Log(2).Len())
	}
	b.say(3*tile, 7, 8, 9)
	a.s.Free()
	b.s.Free()
	if p.Used() != 0 || p.Idle() != 3*2*int64(p.size) || p.logs.Used() != 0 || p.logs.Idle() != 3*int64(p.logs.size) {
		t.Fatalf("%d bytes are used, %d idle; of logs %d and %d", p.Used(), p.Idle(), p.logs.Used(), p.logs.Idle())
	}
	for _, c := range []struct {
		what   string
		tokens []token.ID
		want   int
	}{
		{"one token less than three tiles", ids[:3*tile-1], 2 * tile},
		{"three tiles", ids[:3*tile], 3 * tile},
		{"no whole tile", ids[:tile-1], 0},
		{"nothing", nil, 0},
		{"another first token", append([]token.ID{-1}, ids[1:]...), 0},
		{"another last token of the second tile", append(slices.Clone(ids[:2*tile-1]), ids[2*tile:]...), tile},
		{"the second tile first", ids[tile:], 0},
		{"twice the first", append(slices.Clone(ids[:tile]), ids[:tile]...), tile},
	} {
		b := begin(t, p, 0, 2, c.tokens)
		b.expect(c.what, c.want, c.want)
		b.s.Free()
	}
	for _, c := range []struct {
		what        string
		first, last int
		want        []int
	}{{"other layers", 2, 4, []int{0, 0}}, {"a larger block", 0, 3, []int{3 * tile, 3 * tile, 0}}, {"a later one", 1, 3, []int{3 * tile, 0}}, {"no layers", 0, 0, nil}} {
		b := begin(t, p, c.first, c.last, ids)
		b.expect(c.what, c.want...)
		b.s.Free()
	}
	if p.Used() != 0 || p.Idle() != 3*2*int64(p.size) {
		t.Errorf("%d bytes are used, %d idle", p.Used(), p.Idle())
	}
}

// TestOneCopyOfWhatTwoCompute: of two that compute the same at once, one page is kept.
func TestOneCopyOfWhatTwoCompute(t *testing.T) {
	p := sharing(t, 100, 100)
	ids := count(0, 130)
	a, b := begin(t, p, 0, 2, nil), begin(t, p, 0, 2, nil)
	a.say(0, ids...)
	b.say(0, ids...)
	if want := int64((2 + 1 + 1) * 2 * p.size); p.Used() != want || p.logs.Used() != int64(4*p.logs.size) {
		t.Errorf("%d bytes are used, want %d; %d of logs", p.Used(), want, p.logs.Used())
	}
	a.check()
	b.check()
}

// TestSharedPagesAreNotWrittenTo: a sequence that goes back into a shared page goes on with a copy, or, if nobody else holds
// it, takes it back.
func TestSharedPagesAreNotWrittenTo(t *testing.T) {
	const tile = PagePositions
	p := sharing(t, 12, 6)
	ids := count(0, 2*tile+3)
	a := begin(t, p, 0, 2, nil)
	a.say(0, ids...)
	b := begin(t, p, 0, 2, ids)
	b.say(tile+10, 1000, 1001)
	b.expect("after going back", tile+12, tile+12)
	a.expect("the other", len(ids), len(ids))
	if got := p.Used(); got != int64(8*p.size) {
		t.Errorf("%d pages are used, not the six and a copy in each layer", got/int64(p.size))
	}
	b.s.Free()
	a.say(tile+20, 5) // alone: no copy
	if a.expect("alone", tile+21, tile+21); p.Used() != int64(4*p.size) {
		t.Errorf("%d pages are used", p.Used()/int64(p.size))
	}
	c := begin(t, p, 0, 2, ids)
	c.expect("a third, after the page was taken back", tile, tile)
	c.say(5, 7)
	a.expect("the first page is another's as well", tile+21, tile+21)
	c.expect("the third", 6, 6)
	// Back to where a page begins, nothing is copied, and what was kept stays.
	a.say(tile+21, ids[tile+21:2*tile]...)
	a.s.Truncate(2 * tile)
	a.say(tile, 9)
	b = begin(t, p, 0, 2, a.tokens[:tile])
	b.expect("what is below", tile, tile)
}

// TestRunningSequencesFindRoom: whatever is idle makes room, the oldest and the last of each sequence first.
func TestRunningSequencesFindRoom(t *testing.T) {
	const tile = PagePositions
	p := sharing(t, 12, 6) // six tiles of two layers
	old, recent := count(0, 3*tile), count(1000, 3*tile)
	for _, ids := range [][]token.ID{old, recent} {
		a := begin(t, p, 0, 2, ids)
		a.say(0, ids...)
		a.s.Free()
	}
	has := func(ids []token.ID, want int) {
		t.Helper()
		a := &chat{t: t, s: p.NewSequence(2), tokens: ids}
		a.s.Find(ids)
		a.expect("of what was kept", want, want)
		a.s.Free()
	}
	has(recent, 3*tile)
	has(old, 3*tile) // this is the recent one now
	a := begin(t, p, 0, 2, nil)
	a.say(0, count(2000, tile+1)...) // two tiles
	has(recent, tile)
	has(old, 3*tile)
	a.s.Free()
	a = begin(t, p, 0, 2, nil)
	a.say(0, count(3000, 6*tile)...)
	if p.Idle() != 0 || p.Used() != p.Limit() {
		t.Errorf("%d bytes are idle, %d used of %d", p.Idle(), p.Used(), p.Limit())
	}
	b := begin(t, p, 0, 2, nil)
	if err := b.run(0, 2, 0, 1); !errors.Is(err, ErrFull) {
		t.Errorf("nothing is idle, and yet there is room: %v", err)
	}
	a.check()
}

// TestWhatCannotHaveRoomEvictsNothing.
func TestWhatCannotHaveRoomEvictsNothing(t *testing.T) {
	p := sharing(t, 4, 2)
	a := begin(t, p, 0, 2, nil)
	a.say(0, count(0, 2*PagePositions)...)
	a.s.Free()
	if err := begin(t, p, 0, 2, nil).run(0, 2, 0, count(1, 3*PagePositions)...); !errors.Is(err, ErrFull) || p.Idle() != p.Limit() {
		t.Errorf("%v, %d bytes are idle of %d", err, p.Idle(), p.Limit())
	}
}

// TestForget: the pages of a layer that left the shard go, those of the others stay.
func TestForget(t *testing.T) {
	const tile = PagePositions
	p := sharing(t, 12, 6)
	ids := count(0, 3*tile)
	a := begin(t, p, 0, 2, nil)
	a.say(0, ids...)
	next := &chat{t: t, s: p.NewSequenceAt(0, 1), tokens: ids}
	next.s.Inherit(a.s)
	p.Forget(1)
	if p.Used() != 3*int64(p.size) {
		t.Errorf("%d bytes are used", p.Used())
	}
	next.s.Free()
	b := begin(t, p, 0, 2, ids)
	b.expect("after the layer came back", 3*tile, 0)
	b.s.Free()
	p.Forget(0)
	if p.Used()+p.Idle() != 0 {
		t.Errorf("%d bytes are used, %d idle", p.Used(), p.Idle())
	}
}

// TestIdlePagesGoWithTheLimit.
func TestIdlePagesGoWithTheLimit(t *testing.T) {
	p := sharing(t, 0, 0)
	perSlab := slabBytes / p.size
	p.Resize(int64(4*perSlab) * int64(p.size))
	for i := range 4 {
		a := &chat{t: t, s: p.NewSequence(1)}
		a.say(0, count(token.ID(i*1e6), perSlab*PagePositions)...)
		a.s.Free()
	}
	p.Resize(int64(2*perSlab) * int64(p.size))
	if got := held(&p.store); got > 2*perSlab*p.size || got == 0 || p.Idle() == 0 {
		t.Errorf("%d bytes are held, %d idle, %d allowed", got, p.Idle(), p.Limit())
	}
	a := &chat{t: t, s: p.NewSequence(1), tokens: count(3e6, perSlab*PagePositions)}
	if a.s.Find(a.tokens); a.s.Len() == 0 {
		t.Error("what is newest went first")
	}
	p.Resize(0)
	a.check()
	if a.s.Free(); p.Used()+p.Idle() != 0 || held(&p.store) != 0 {
		t.Errorf("%d bytes are held above the limit, %d idle", held(&p.store), p.Idle())
	}
}

// TestLogsGoAlone: where no logs are kept any more, the pages stay.
func TestLogsGoAlone(t *testing.T) {
	p := sharing(t, 12, 6)
	ids := count(0, 5*PagePositions)
	a := begin(t, p, 0, 2, nil)
	a.say(0, ids[:3*PagePositions]...)
	a.s.Free()
	a = begin(t, p, 0, 2, ids)
	a.expect("before", 3*PagePositions, 3*PagePositions)
	a.say(3*PagePositions, ids[3*PagePositions:]...)
	a.s.Truncate(4 * PagePositions) // the last is idle
	p.logs.Resize(0)
	if p.logs.Idle() != 0 || p.logs.Used() != int64(4*p.logs.size) || p.Idle() != int64(2*p.size) {
		t.Errorf("%d bytes of logs are idle, %d used; %d of pages are idle", p.logs.Idle(), p.logs.Used(), p.Idle())
	}
	a.s.Free()
	if p.logs.Idle()+p.logs.Used() != 0 || held(&p.logs.store) != 0 {
		t.Errorf("%d bytes of logs are held", held(&p.logs.store))
	}
	b := begin(t, p, 0, 2, ids)
	b.expect("after", 5*PagePositions, 5*PagePositions)
}

// TestStepsAllocateNothing: neither taking pages, nor keeping them, nor evicting others costs the garbage collector anything,
// once a sequence's lists have grown.
func TestStepsAllocateNothing(t *testing.T) {
	p := sharing(t, 2*40, 40)
	row := make([]float32, logWidth)
	next := token.ID(0)
	tokens := make([]token.ID, 0, 1024)
	turn := func(s *Sequence) { // 1,024 steps
		s.Truncate(0)
		tokens = tokens[:0]
		for at := range cap(tokens) {
			next++
			tokens = append(tokens, next)
			if err := s.Reserve(at, at+1); err != nil {
				t.Fatal(err)
			}
			s.Advance(at + 1)
			if err := s.Log(2).Write(at, row); err != nil {
				t.Fatal(err)
			}
			s.Keep(tokens)
		}
	}
	s := p.NewSequence(2)
	s.OpenLog(2)
	for range 6 {
		turn(s)
	}
	if n := testing.AllocsPerRun(20, func() { turn(s) }); n > 0 {
		t.Errorf("1,024 steps allocate %v times", n)
	}
}
