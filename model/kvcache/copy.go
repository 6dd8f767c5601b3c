package kvcache

import (
	"fmt"
	"unsafe"
)

// Words is how many words of 32 bits Read gives for a position of a layer.
func (s *Sequence) Words() int { return s.pool.shape.Bytes() / PagePositions / 4 }

// Read copies what a layer has stored of the positions from first on to words, (n, Words). Its form is for Write alone: of each
// page in order, the memory without the slots of other positions.
func (s *Sequence) Read(words []float32, layer, first int) error {
	n, err := s.positions(words)
	if err != nil {
		return err
	}
	if length := s.LenIn(layer, layer+1); first < 0 || n > length-first {
		return fmt.Errorf("read %d positions from %d of a layer of %d", n, first, length)
	}
	data := bytesOf(words)
	s.visit(layer, first, n, func(page []byte) { data = data[copy(data, page):] })
	return nil
}

// Write stores what Read gave where a layer ends, at first. It leaves everything as it was if that is not possible: ErrFull if
// the pool is.
func (s *Sequence) Write(layer, first int, words []float32) error {
	n, err := s.positions(words)
	if err != nil {
		return err
	}
	if length := s.LenIn(layer, layer+1); first != length {
		return fmt.Errorf("write %d positions at %d of a layer of %d", n, first, length)
	}
	if err := s.ReserveIn(layer, layer+1, first, first+n); err != nil {
		return err
	}
	data := bytesOf(words)
	s.visit(layer, first, n, func(page []byte) { data = data[copy(page, data):] })
	s.AdvanceIn(layer, layer+1, first+n)
	return nil
}

// positions is how many positions so many words are.
func (s *Sequence) positions(words []float32) (int, error) {
	width := s.Words()
	if width*PagePositions*4 != s.pool.shape.Bytes() || len(words)%width != 0 {
		return 0, fmt.Errorf("%d words are no whole positions of %d bytes", len(words), s.pool.shape.Bytes()/PagePositions)
	}
	return len(words) / width, nil
}

// visit gives the memory of the positions [first, first+n) of a layer in order, in parts.
func (s *Sequence) visit(layer, first, n int, part func([]byte)) {
	pages := s.Pages(layer)
	for end := first + n; first < end; {
		slot := first % PagePositions
		count := min(PagePositions-slot, end-first)
		page := pages[first/PagePositions]
		s.pool.shape.Slots(slot, slot+count, func(at, n int) { part(page[at : at+n]) })
		first += count
	}
}

// bytesOf views words as bytes, in the order in which they lie.
func bytesOf(words []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*4)
}
