package kvcache

import (
	"errors"
	"math"
	"slices"
	"testing"
)

// TestLayersHaveTheirOwnLengths: layers that were taken over are behind, and catch up without the others noticing.
func TestLayersHaveTheirOwnLengths(t *testing.T) {
	p := newPool(t, 100)
	s := p.NewSequence(4)
	if err := s.Reserve(0, 70); err != nil {
		t.Fatal(err)
	}
	s.Advance(70)
	kept := &s.Pages(2)[0][0]

	next := p.NewSequenceAt(1, 5) // layers 1 to 3 of the former one, and two more
	next.Inherit(s)
	if s.Len() != 0 || next.LenIn(0, 3) != 70 || next.LenIn(3, 5) != 0 || next.Len() != 0 || &next.Pages(1)[0][0] != kept {
		t.Fatalf("inherited %d and %d positions, %d are left", next.LenIn(0, 3), next.LenIn(3, 5), s.Len())
	}
	if used := p.Used(); used != 3*2*int64(p.Shape().Bytes()) {
		t.Errorf("%d bytes are in use: the layer that nobody inherits holds its pages", used)
	}
	if err := next.Reserve(70, 71); err == nil {
		t.Error("positions are reserved above a gap")
	}
	if err := next.ReserveIn(3, 5, 0, 70); err != nil {
		t.Fatal(err)
	}
	next.AdvanceIn(3, 5, 70)
	if next.Len() != 70 || next.LenIn(0, 3) != 70 {
		t.Errorf("%d positions after the replay", next.Len())
	}
	if err := next.Reserve(70, 71); err != nil {
		t.Error(err)
	}
	next.Truncate(3)
	for l := range 5 {
		if next.LenIn(l, l+1) != 3 || len(next.Pages(l)) != 1 {
			t.Errorf("layer %d has %d positions in %d pages", l, next.LenIn(l, l+1), len(next.Pages(l)))
		}
	}
	next.Free()
	if p.Used() != 0 {
		t.Errorf("%d bytes leak", p.Used())
	}
}

func TestInheritNothing(t *testing.T) {
	p := newPool(t, 10)
	old, apart, none := p.NewSequence(2), p.NewSequenceAt(7, 2), p.NewSequence(0)
	if err := old.Reserve(0, 5); err != nil {
		t.Fatal(err)
	}
	old.Advance(5)
	apart.Inherit(old)
	if apart.Len() != 0 || old.Len() != 0 || p.Used() != 0 {
		t.Errorf("%d positions inherited from other layers, %d left, %d bytes used", apart.Len(), old.Len(), p.Used())
	}
	none.Inherit(old)
	if none.Len() != math.MaxInt {
		t.Errorf("a sequence without layers misses positions: it has %d", none.Len())
	}
}

func TestResize(t *testing.T) {
	p := newPool(t, 2)
	page := int64(p.Shape().Bytes())
	s := p.NewSequence(1)
	if err := s.Reserve(0, 129); !errors.Is(err, ErrFull) {
		t.Fatalf("a third page: %v", err)
	}
	p.Resize(3 * page)
	if err := s.Reserve(0, 129); err != nil || p.Limit() != 3*page {
		t.Fatalf("limit %d: %v", p.Limit(), err)
	}
	p.Resize(page) // what is in use stays
	if p.Used() != 3*page {
		t.Errorf("%d bytes used", p.Used())
	}
	if err := s.Reserve(0, 193); !errors.Is(err, ErrFull) {
		t.Errorf("a page above a limit that is exceeded: %v", err)
	}
}

func TestLog(t *testing.T) {
	const width = 3
	layers := newPool(t, 0)
	p, err := layers.NewLogPool(width, LogBytes(width, 200)) // 4 pages
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	rows := func(first, n int) []float32 {
		out := make([]float32, n*width)
		for i := range out {
			out[i] = float32(first*width + i)
		}
		return out
	}
	l, other := layers.NewSequence(0).OpenLog(0), layers.NewSequence(0).OpenLog(0)
	for _, piece := range [][2]int{{0, 1}, {1, 62}, {63, 2}, {65, 100}, {100, 92}} { // the last one overwrites
		if err := l.Write(piece[0], rows(piece[0], piece[1])); err != nil {
			t.Fatal(err)
		}
	}
	if l.Len() != 192 {
		t.Fatalf("%d positions are kept", l.Len())
	}
	got := make([]float32, 150*width)
	if err := l.Read(got, 20); err != nil || !slices.Equal(got, rows(20, 150)) {
		t.Errorf("other rows came back: %v", err)
	}
	if err := l.Read(got, 43); err == nil {
		t.Error("rows above the end were read")
	}
	if err := l.Write(193, rows(193, 1)); err == nil {
		t.Error("a gap was written")
	}
	if err := l.Write(0, make([]float32, width+1)); err == nil {
		t.Error("half a row was written")
	}
	if err := other.Write(0, rows(0, 100)); !errors.Is(err, ErrFull) || other.Len() != 0 {
		t.Errorf("more pages than there are: %v", err)
	}
	if l.Truncate(64); l.Len() != 64 || p.Used() != int64(PagePositions*width*4) {
		t.Errorf("%d positions in %d bytes", l.Len(), p.Used())
	}
	if err := other.Write(0, rows(0, 100)); err != nil {
		t.Error(err)
	}
	got = got[:64*width]
	if err := l.Read(got, 0); err != nil || !slices.Equal(got, rows(0, 64)) {
		t.Errorf("what was kept has changed: %v", err)
	}
	l.Free()
	other.Free()
	if p.Used() != 0 {
		t.Errorf("%d bytes leak", p.Used())
	}
	for _, bad := range []struct {
		width int
		bytes int64
	}{{0, 1}, {1, -1}} {
		if _, err := newPool(t, 0).NewLogPool(bad.width, bad.bytes); err == nil {
			t.Errorf("%+v makes a pool", bad)
		}
	}
}
