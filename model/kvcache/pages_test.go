package kvcache

import (
	"testing"
)

// held is the memory that a pool has taken, whether pages of it are in use or not.
func held(s *store) int {
	n := 0
	for _, slab := range s.slabs {
		n += len(slab)
	}
	return n
}

// TestALowerLimitGivesMemoryBack: a shard that has stood in for others must not keep, after they are back, what it needed
// meanwhile; what sequences use stays until they end.
func TestALowerLimitGivesMemoryBack(t *testing.T) {
	const slabs = 4
	p := newPool(t, 0)
	perSlab := slabBytes / p.size
	p.Resize(int64(slabs*perSlab) * int64(p.size))
	var all []*Sequence
	for range slabs {
		s := p.NewSequence(1)
		if err := s.Reserve(0, perSlab*PagePositions); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if got := held(&p.store); got != slabs*perSlab*p.size {
		t.Fatalf("%d bytes are held", got)
	}
	page := all[1].Pages(0)[0]
	all[0].Free()
	all[2].Free()
	p.Resize(int64(p.size))
	if got := held(&p.store); got != 2*perSlab*p.size || p.made != 2*perSlab || len(p.free) != 0 {
		t.Errorf("two sequences are left: %d bytes are held, %d pages, %d of them free", got, p.made, len(p.free))
	}
	page[0], page[len(page)-1] = 1, 1 // still there
	s := p.NewSequence(1)
	if err := s.Reserve(0, 1); err == nil {
		t.Error("a page above the limit was given")
	}
	all[1].Free()
	all[3].Free()
	if got := held(&p.store); got != 0 || p.Used() != 0 {
		t.Errorf("none is left: %d bytes are held, %d used", got, p.Used())
	}
	p.Resize(int64(perSlab) * int64(p.size))
	if err := s.Reserve(0, perSlab*PagePositions); err != nil {
		t.Errorf("within the new limit: %v", err)
	}
	s.Free()
	if got := held(&p.store); got != perSlab*p.size {
		t.Errorf("at the limit: %d bytes are held", got)
	}
}
