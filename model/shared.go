package model

import (
	"sync/atomic"

	"github.com/daisy-llm/daisy/model/offheap"
)

// piece is what is loaded, kept and given away as one: a layer, or the head with its norm.
type piece interface {
	matrices() []*matrix
	vectors() []*vector
	place(memory []byte) // says where the matrices are
}

// shared is the memory of a piece's packed weights, off the Go heap, and how many hold it: blocks of several plans may have a
// layer in common.
type shared struct {
	memory  []byte
	holders atomic.Int32
}

func (s *shared) place(memory []byte) { s.memory = memory }

func (s *shared) hold() {
	if s != nil {
		s.holders.Add(1)
	}
}

// drop ends a hold; the last one gives the memory back. Unmapping what was mapped cannot fail, and nothing could be done about it.
func (s *shared) drop() {
	if s != nil && s.holders.Add(-1) == 0 {
		_ = offheap.Free(s.memory)
		s.memory = nil
	}
}

// Lent is a hold on the weights of a block. A block that is loaded with it (Options.Lent) takes from it what both have, and
// reads only the rest from the file, which must be the same.
type Lent struct {
	first  LayerIndex
	layers []*layer
	ends   *ends
}

// Lend gives a hold on the block's weights. The goroutine that uses the block calls it; the Lent may go to another, which
// must Close it.
func (b *Block) Lend() *Lent {
	l := &Lent{first: b.first, layers: b.layers, ends: b.ends}
	l.each((*shared).hold)
	return l
}

// Close ends the hold. The weights stay as long as a block has them.
func (l *Lent) Close() {
	l.each((*shared).drop)
	l.layers, l.ends = nil, &ends{}
}

func (l *Lent) each(do func(*shared)) {
	for _, layer := range l.layers {
		do(layer.shared)
	}
	do(l.ends.shared)
}

// layer gives a layer that is lent, or nil.
func (l *Lent) layer(index LayerIndex) *layer {
	if i := int(index - l.first); i >= 0 && i < len(l.layers) {
		return l.layers[i]
	}
	return nil
}
