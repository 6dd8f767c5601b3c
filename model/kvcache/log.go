package kvcache

import (
	"fmt"
	"unsafe"

	"github.com/daisy-llm/daisy/model/kernel"
)

// LogPool owns the pages of the activation logs of all sequences on a shard.
type LogPool struct {
	store
	width int
}

// LogBytes is what a log of rows of so many float32 values needs for so many positions: whole pages.
func LogBytes(width, positions int) int64 {
	return int64(pages(positions)) * PagePositions * int64(width) * 4
}

// NewLogPool takes no memory yet; it will take at most so many bytes.
func NewLogPool(width int, bytes int64) (*LogPool, error) {
	if width < 1 || bytes < 0 {
		return nil, fmt.Errorf("make activation logs of %d values a row in %d bytes: not possible", width, bytes)
	}
	size := PagePositions * width * 4
	return &LogPool{store: store{size: size, limit: int(bytes / int64(size))}, width: width}, nil
}

// Log keeps the rows that have left a block, (positions, width) float32, for one sequence. Should the shards behind the
// block be lost, what they had cached can be computed again from here. It is for one goroutine at a time.
type Log struct {
	pool   *LogPool
	pages  []kernel.Page
	length int
}

// NewLog makes an empty log.
func (p *LogPool) NewLog() *Log { return &Log{pool: p} }

// Len is the number of positions that are stored.
func (l *Log) Len() int { return l.length }

// Write stores rows, (n, width), for the positions from first on, and drops what was stored there and above. It leaves
// everything as it was if that is not possible: ErrFull if the pool is.
func (l *Log) Write(first int, rows []float32) error {
	n := len(rows) / l.pool.width
	if first < 0 || first > l.length || len(rows) != n*l.pool.width {
		return fmt.Errorf("write %d values at position %d of a log of %d: a gap, or no whole rows", len(rows), first, l.length)
	}
	if err := l.reserve(pages(first + n)); err != nil {
		return err
	}
	l.copy(first, n, func(at int, kept []float32) { copy(kept, rows[at*l.pool.width:]) })
	l.length = first + n
	return nil
}

// reserve gives the log so many pages.
func (l *Log) reserve(want int) error {
	if want <= len(l.pages) {
		return nil
	}
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if err := l.pool.ensureLocked(want - len(l.pages)); err != nil {
		return err
	}
	l.pool.takeLocked(&l.pages, want)
	return nil
}

// Read copies the rows of the positions from first on to rows, (n, width).
func (l *Log) Read(rows []float32, first int) error {
	n := len(rows) / l.pool.width
	if first < 0 || first+n > l.length || len(rows) != n*l.pool.width {
		return fmt.Errorf("read %d values at position %d of a log of %d", len(rows), first, l.length)
	}
	l.copy(first, n, func(at int, kept []float32) { copy(rows[at*l.pool.width:], kept) })
	return nil
}

// copy visits the positions [first, first+n) in pieces, none of which crosses a page; at counts from first.
func (l *Log) copy(first, n int, piece func(at int, kept []float32)) {
	for at := 0; at < n; {
		page, slot := (first+at)/PagePositions, (first+at)%PagePositions
		count := min(PagePositions-slot, n-at)
		values := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(l.pages[page]))), PagePositions*l.pool.width)
		piece(at, values[slot*l.pool.width:(slot+count)*l.pool.width])
		at += count
	}
}

// Truncate keeps only the positions below length. A longer length changes nothing.
func (l *Log) Truncate(length int) {
	l.length = max(0, min(l.length, length))
	l.pool.give(&l.pages, pages(l.length))
}

// Free gives all pages back. The log is empty then, and may be used again.
func (l *Log) Free() { l.Truncate(0) }
