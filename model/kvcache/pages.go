package kvcache

import (
	"cmp"
	"fmt"
	"slices"
	"unsafe"

	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/offheap"
)

// slabBytes is how much is taken from the system at once: enough for huge pages to pay.
const slabBytes = 8 << 20

// store is pages of one size: those that sequences hold, those that lie idle on the shelf, and those that are free. Its
// methods may be called from any goroutine.
type store struct {
	size  int    // bytes of a page
	shelf *shelf // whose mutex guards what follows

	limit int           // pages
	free  []kernel.Page // the last one given back is the first one taken: it is still in the CPU's caches
	slabs [][]byte
	made  int // pages cut from the slabs so far
	idle  int // pages of columns that no sequence holds
}

// Limit is the memory, in bytes, that the pages may take.
func (s *store) Limit() int64 {
	s.shelf.mu.Lock()
	defer s.shelf.mu.Unlock()
	return int64(s.limit) * int64(s.size)
}

// Resize changes the limit to so many bytes. Pages that sequences hold stay, also above it; slabs above it without any are
// given back, and what is idle goes for that, the oldest first.
func (s *store) Resize(bytes int64) {
	s.shelf.mu.Lock()
	defer s.shelf.mu.Unlock()
	s.limit = int(max(0, bytes) / int64(s.size))
	for s.trimLocked(); s.made > s.limit && s.idle > 0; s.trimLocked() {
		s.shelf.shrinkLocked(s)
	}
}

// trimLocked gives slabs back, as many as are above the limit, of which no page is in use. What is above the limit counts as
// somebody else's memory.
func (s *store) trimLocked() {
	if s.made <= s.limit {
		return
	}
	at := func(memory []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(memory))) }
	slices.SortFunc(s.slabs, func(a, b []byte) int { return cmp.Compare(at(a), at(b)) })
	slabOf := func(p kernel.Page) int {
		i, first := slices.BinarySearchFunc(s.slabs, at(p), func(slab []byte, page uintptr) int { return cmp.Compare(at(slab), page) })
		if first {
			return i
		}
		return i - 1
	}
	unused := make([]int, len(s.slabs)) // pages
	for _, p := range s.free {
		unused[slabOf(p)]++
	}
	gone := make([]bool, len(s.slabs))
	for i, slab := range s.slabs {
		if pages := len(slab) / s.size; s.made > s.limit && unused[i] == pages {
			gone[i] = true
			s.made -= pages
		}
	}
	s.free = slices.DeleteFunc(s.free, func(p kernel.Page) bool { return gone[slabOf(p)] })
	kept := s.slabs[:0:0]
	for i, slab := range s.slabs {
		if !gone[i] {
			kept = append(kept, slab)
		} else if err := offheap.Free(slab); err != nil { // it is still there: Close tries again
			kept = append(kept, slab)
		}
	}
	s.slabs = kept
}

// Used is the memory, in bytes, of the pages that sequences hold.
func (s *store) Used() int64 {
	s.shelf.mu.Lock()
	defer s.shelf.mu.Unlock()
	return int64(s.made-len(s.free)-s.idle) * int64(s.size)
}

// Idle is the memory, in bytes, of the pages that no sequence holds, but the next one may find.
func (s *store) Idle() int64 {
	s.shelf.mu.Lock()
	defer s.shelf.mu.Unlock()
	return int64(s.idle) * int64(s.size)
}

// Close gives all memory back. No page may be used afterwards.
func (s *store) Close() error {
	s.shelf.mu.Lock()
	defer s.shelf.mu.Unlock()
	var first error
	for _, slab := range s.slabs {
		if err := offheap.Free(slab); err != nil && first == nil {
			first = fmt.Errorf("close the cache: %w", err)
		}
	}
	s.slabs, s.free, s.made, s.limit, s.idle = nil, nil, 0, 0, 0
	s.shelf.clearLocked()
	return first
}

// takeLocked adds free pages to a list until it has n.
func (s *store) takeLocked(list *[]kernel.Page, n int) {
	if n <= len(*list) {
		return
	}
	left := len(s.free) - (n - len(*list))
	*list = append(*list, s.free[left:]...)
	s.free = s.free[:left]
}

// putLocked takes back a page.
func (s *store) putLocked(p *kernel.Page) {
	s.free = append(s.free, *p)
	*p = nil
	if len(s.free) == s.made { // what was in use when the limit fell is not any more
		s.trimLocked()
	}
}

// ensureLocked makes n pages free, or says ErrFull. What is idle makes room for what runs.
func (s *store) ensureLocked(n int) error {
	if room := max(0, s.limit-s.made); n-len(s.free)-s.idle > room {
		return fmt.Errorf("%w: %d pages are needed, %d of %d are free", ErrFull, n, room+len(s.free)+s.idle, s.limit)
	}
	for n-len(s.free) > max(0, s.limit-s.made) {
		s.shelf.evictLocked()
	}
	for len(s.free) < n {
		count := min(s.limit-s.made, max(1, slabBytes/s.size))
		slab, err := offheap.Alloc(count * s.size)
		if err != nil {
			return fmt.Errorf("grow the cache: %w", err)
		}
		s.slabs = append(s.slabs, slab)
		for i := count - 1; i >= 0; i-- {
			s.free = append(s.free, kernel.Page(slab[i*s.size:(i+1)*s.size:(i+1)*s.size]))
		}
		s.made += count
	}
	return nil
}
