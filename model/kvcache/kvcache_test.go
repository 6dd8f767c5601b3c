package kvcache

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"

	"github.com/daisy-llm/daisy/model/kernel"
)

func newPool(t testing.TB, pages int) *Pool {
	t.Helper()
	p, err := NewPool(Config{Type: F16, KVHeads: 2, HeadDim: 16, Bytes: int64(pages)*Bytes(F16, 2, 16, 1) + 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestTypes(t *testing.T) {
	for _, want := range []Type{F16, F32} {
		if got, err := Parse(want.String()); err != nil || got != want {
			t.Errorf("parse %v: %v, %v", want, got, err)
		}
	}
	for _, bad := range []string{"", "F16", "q8_0", strings.Repeat("f", 1<<20)} {
		if _, err := Parse(bad); err == nil || !strings.Contains(err.Error(), "use f16 or f32") || len(err.Error()) > 200 {
			t.Errorf("parse %.10q: %v", bad, err)
		}
	}
}

func TestBytes(t *testing.T) {
	for _, c := range []struct {
		t                    Type
		heads, dim, position int
		want                 int64
	}{
		{F16, 3, 64, 0, 0},
		{F16, 3, 64, 1, 64 * 3 * 64 * 2 * 2},
		{F16, 3, 64, 64, 64 * 3 * 64 * 2 * 2},
		{F32, 3, 64, 65, 2 * 64 * 3 * 64 * 2 * 4},
		{F32, 1024, 1024, 1 << 24, 1 << 24 * 1024 * 1024 * 8}, // no overflow
	} {
		if got := Bytes(c.t, c.heads, c.dim, c.position); got != c.want {
			t.Errorf("%+v: %d bytes", c, got)
		}
	}
}

func TestNewPoolRefuses(t *testing.T) {
	for _, c := range []Config{
		{KVHeads: 0, HeadDim: 1}, {KVHeads: 1, HeadDim: 0}, {KVHeads: 1, HeadDim: 1, Bytes: -1}, {KVHeads: -1, HeadDim: 1}, {Type: 9, KVHeads: 1, HeadDim: 1},
	} {
		if _, err := NewPool(c); err == nil {
			t.Errorf("%+v makes a pool", c)
		}
	}
}

func TestSequence(t *testing.T) {
	p := newPool(t, 7)
	page := int64(p.Shape().Bytes())
	if p.Limit() != 7*page || p.Used() != 0 {
		t.Fatalf("limit %d, used %d", p.Limit(), p.Used())
	}
	s := p.NewSequence(2)
	reserve := func(first, end int) {
		t.Helper()
		if err := s.Reserve(first, end); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(length, pages int) {
		t.Helper()
		if s.Len() != length || p.Used() != int64(pages)*page || len(s.Pages(0)) != pages/2 || len(s.Pages(1)) != pages/2 {
			t.Fatalf("length %d, %d bytes used, %d and %d pages; want length %d, %d pages", s.Len(), p.Used(), len(s.Pages(0)), len(s.Pages(1)), length, pages)
		}
	}
	expect(0, 0)
	reserve(0, 64)
	expect(0, 2)
	s.Advance(64)
	expect(64, 2)
	reserve(64, 65)
	s.Advance(65)
	expect(65, 4)
	reserve(10, 20) // drops what is stored above, but keeps the pages until Truncate
	expect(10, 4)
	s.Advance(20)
	s.Truncate(100)
	expect(20, 2)
	reserve(20, 192)
	expect(20, 6)
	first := &s.Pages(0)[0][0]
	if err := s.Reserve(5, 193); !errors.Is(err, ErrFull) {
		t.Fatalf("an eighth page: %v", err)
	}
	expect(20, 6) // as it was: not even truncated
	for _, bad := range [][2]int{{21, 30}, {-1, 3}, {5, 4}} {
		if err := s.Reserve(bad[0], bad[1]); err == nil || errors.Is(err, ErrFull) {
			t.Errorf("reserve %v: %v", bad, err)
		}
	}
	s.Truncate(-3)
	expect(0, 0)
	reserve(0, 1)
	if &s.Pages(0)[0][0] == first && &s.Pages(1)[0][0] == first {
		t.Error("two layers share a page")
	}
	s.Free()
	s.Free()
	expect(0, 0)
}

func TestSequenceWithoutLayers(t *testing.T) {
	s := newPool(t, 0).NewSequence(0)
	if err := s.Reserve(0, 1000); err != nil {
		t.Fatal(err)
	}
	s.Advance(1000)
	s.Truncate(500)
	if s.Len() != math.MaxInt || s.Layers() != 0 { // no layer misses a position
		t.Errorf("length %d", s.Len())
	}
	s.Free()
}

func TestAdvancePanicsWithoutRoom(t *testing.T) {
	s := newPool(t, 4).NewSequence(1)
	if err := s.Reserve(0, 64); err != nil {
		t.Fatal(err)
	}
	for _, end := range []int{65, -1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("advanced to %d", end)
				}
			}()
			s.Advance(end)
		}()
	}
}

// TestPagesAreNobodyElses runs random operations and checks the invariants: every page has one owner, none is lost.
func TestPagesAreNobodyElses(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	p := newPool(t, 40)
	sequences := []*Sequence{p.NewSequence(1), p.NewSequence(2), p.NewSequence(3)}
	full := 0
	for range 3000 {
		s := sequences[random.IntN(len(sequences))]
		switch random.IntN(4) {
		case 0, 1:
			first := random.IntN(s.Len() + 1)
			end := first + random.IntN(400)
			if err := s.Reserve(first, end); err == nil {
				s.Advance(end)
			} else if full++; !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
		case 2:
			s.Truncate(random.IntN(500))
		case 3:
			if random.IntN(5) == 0 {
				s.Free()
			}
		}
		owners, held := map[unsafe.Pointer]bool{}, 0
		for _, s := range sequences {
			for l := range s.Layers() {
				if have := len(s.Pages(l)); have < pages(s.Len()) {
					t.Fatalf("%d pages for %d positions", have, s.Len())
				}
				for _, page := range s.Pages(l) {
					at := unsafe.Pointer(&page[0])
					if owners[at] || len(page) != p.Shape().Bytes() || uintptr(at)%64 != 0 {
						t.Fatalf("page at %p has two owners, or the wrong size", at)
					}
					owners[at] = true
					held++
				}
			}
		}
		if p.Used() != int64(held*p.Shape().Bytes()) || p.Used() > p.Limit() {
			t.Fatalf("%d pages are held, %d bytes used of %d", held, p.Used(), p.Limit())
		}
	}
	if full == 0 {
		t.Error("the pool was never full")
	}
}

func TestSlabsRespectTheLimit(t *testing.T) {
	const heads, dim = 64, 128 // 4 MiB a page: two in a slab
	p, err := NewPool(Config{Type: F32, KVHeads: heads, HeadDim: dim, Bytes: 3 * Bytes(F32, heads, dim, kernel.TilePositions)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := p.NewSequence(3)
	if err := s.Reserve(0, 64); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, slab := range p.slabs {
		total += len(slab)
	}
	if int64(total) > p.Limit() {
		t.Errorf("%d bytes taken, the limit is %d", total, p.Limit())
	}
	if err := s.Reserve(0, 65); !errors.Is(err, ErrFull) {
		t.Errorf("a fourth page: %v", err)
	}
}
