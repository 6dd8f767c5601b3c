package kvcache

import (
	"fmt"
	"slices"
	"unsafe"
)

// LogPool owns the pages of the activation logs of a Pool's sequences.
type LogPool struct {
	store
	width int
}

// LogBytes is what a log of rows of so many float32 values needs for so many positions: whole pages.
func LogBytes(width, positions int) int64 {
	return int64(pages(positions)) * PagePositions * int64(width) * 4
}

// NewLogPool lets the pool's sequences have logs. It takes no memory yet; it will take at most so many bytes.
func (p *Pool) NewLogPool(width int, bytes int64) (*LogPool, error) {
	if width < 1 || bytes < 0 || p.logs != nil {
		return nil, fmt.Errorf("make activation logs of %d values a row in %d bytes: not possible, or there are some already", width, bytes)
	}
	size := PagePositions * width * 4
	p.logs = &LogPool{store: store{size: size, shelf: p.shelf, limit: int(bytes / int64(size))}, width: width}
	p.shelf.logs = &p.logs.store
	return p.logs, nil
}

// Log keeps the rows that enter a layer of the model, (positions, width) float32, for one sequence. Should the shards behind
// the block be lost, what they had cached can be computed again from here.
type Log struct {
	sequence *Sequence
	before   int
	cached
}

// OpenLog gives the sequence's log of the rows that enter a layer of the model. If there is none, it makes an empty one.
func (s *Sequence) OpenLog(before int) *Log {
	l := s.Log(before)
	if l == nil {
		l = &Log{sequence: s, before: before, cached: cached{store: &s.pool.logs.store}}
		s.logs = append(s.logs, l)
	}
	return l
}

// Log finds the log of the rows that enter a layer of the model, nil if there is none.
func (s *Sequence) Log(before int) *Log {
	for _, l := range s.logs {
		if l.before == before {
			return l
		}
	}
	return nil
}

// Logs gives all logs, in the order of their layers.
func (s *Sequence) Logs() []*Log {
	slices.SortFunc(s.logs, func(a, b *Log) int { return a.before - b.before })
	return s.logs
}

// CloseLogs frees all logs but that of the rows that enter one layer.
func (s *Sequence) CloseLogs(but int) {
	s.logs = slices.DeleteFunc(s.logs, func(l *Log) bool {
		if l.before != but {
			l.Free()
		}
		return l.before != but
	})
}

// Before is the layer that the rows enter.
func (l *Log) Before() int { return l.before }

// Len is the number of positions that are stored.
func (l *Log) Len() int { return l.length }

// Write stores rows, (n, width), for the positions from first on, and drops what was stored there and above. It stores
// nothing if that is not possible: ErrFull if the pool is.
func (l *Log) Write(first int, rows []float32) error {
	width := l.sequence.pool.logs.width
	n := len(rows) / width
	if first < 0 || first > l.length || len(rows) != n*width {
		return fmt.Errorf("write %d values at position %d of a log of %d: a gap, or no whole rows", len(rows), first, l.length)
	}
	if err := l.reserve(first, pages(first+n)); err != nil {
		return err
	}
	l.copy(first, n, func(at int, kept []float32) { copy(kept, rows[at*width:]) })
	l.length = first + n
	return nil
}

// reserve gives the log so many pages, of which those from a position on are its own.
func (l *Log) reserve(first, want int) error {
	shared := l.kept*PagePositions > first
	if want <= len(l.pages) && !shared {
		return nil
	}
	l.store.shelf.mu.Lock()
	defer l.store.shelf.mu.Unlock()
	if shared {
		if err := l.sequence.partListsLocked([]*cached{&l.cached}, first); err != nil {
			return err
		}
	}
	if err := l.store.ensureLocked(want - len(l.pages)); err != nil {
		return err
	}
	l.store.takeLocked(&l.pages, want)
	return nil
}

// Read copies the rows of the positions from first on to rows, (n, width).
func (l *Log) Read(rows []float32, first int) error {
	width := l.sequence.pool.logs.width
	n := len(rows) / width
	if first < 0 || first+n > l.length || len(rows) != n*width {
		return fmt.Errorf("read %d values at position %d of a log of %d", len(rows), first, l.length)
	}
	l.copy(first, n, func(at int, kept []float32) { copy(rows[at*width:], kept) })
	return nil
}

// copy visits the positions [first, first+n) in pieces, none of which crosses a page; at counts from first.
func (l *Log) copy(first, n int, piece func(at int, kept []float32)) {
	width := l.sequence.pool.logs.width
	for at := 0; at < n; {
		page, slot := (first+at)/PagePositions, (first+at)%PagePositions
		count := min(PagePositions-slot, n-at)
		values := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(l.pages[page]))), PagePositions*width)
		piece(at, values[slot*width:(slot+count)*width])
		at += count
	}
}

// Truncate keeps only the positions below length. A longer length changes nothing.
func (l *Log) Truncate(length int) {
	l.store.shelf.mu.Lock()
	defer l.store.shelf.mu.Unlock()
	l.truncateLocked(length)
	l.sequence.leaveLocked()
}

// Free gives all pages back. The log is empty then, and may be used again.
func (l *Log) Free() { l.Truncate(0) }
