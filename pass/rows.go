package pass

import (
	"math/bits"
	"sync"
)

// RowPool recycles the float32 buffers in which rows travel. Buffers come in powers of two; their contents are whatever
// the last user left. The zero value is ready.
type RowPool struct {
	classes [bits.UintSize]sync.Pool
}

// Get returns a buffer of n values.
func (p *RowPool) Get(n int) []float32 {
	if n == 0 {
		return nil
	}
	class := bits.Len(uint(n - 1))
	if b, ok := p.classes[class].Get().(*[]float32); ok {
		return (*b)[:n]
	}
	return make([]float32, n, 1<<class)
}

// Put takes back what Get returned. The caller must not touch it again.
func (p *RowPool) Put(rows []float32) {
	n := cap(rows)
	if n == 0 || n&(n-1) != 0 {
		return // not one of ours
	}
	rows = rows[:n]
	p.classes[bits.Len(uint(n-1))].Put(&rows)
}
