package model

import (
	"sync/atomic"

	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/offheap"
)

// Block is a loaded range of layers with all that a pass through them needs. One goroutine at a time uses it.
type Block struct {
	cfg     *Config
	first   LayerIndex
	layers  []*layer
	ends    *ends
	angles  *angles
	kernels *kernel.Set
	maxRows int

	resident int64 // of weights

	scratch
	memory []byte // of scratch, off the Go heap

	team *kernel.Team
	task struct{ forward, head func(worker int) } // kept, so that a pass makes no closure
	pass struct {
		// Workers that come late look at these, too.
		rows, lots, reach atomic.Int32 // of the chunk in hand; reach: the most positions that a row sees
		from, to          atomic.Int32 // layers, counted from the block's first

		x   []float32 // (rows, hidden)
		out []float32 // (rows, vocab)
	}
}

// Layers is the range of layers that the block holds.
func (b *Block) Layers() Layers {
	return Layers{b.first, b.first + LayerIndex(len(b.layers))}
}

// Config is the model's.
func (b *Block) Config() *Config { return b.cfg }

// Resident is the memory, in bytes, that the block keeps: packed weights, of which other blocks may hold some too, and scratch.
func (b *Block) Resident() int64 { return b.resident + int64(len(b.memory)) }

func (b *Block) start(threads int) {
	b.task.forward, b.task.head = b.forwardChunk, b.headChunk
	b.team = kernel.NewTeam(threads)
	b.team.Start()
}

// Close ends the block's workers and gives its memory back. The file and the caches are the caller's.
func (b *Block) Close() {
	if b.team != nil {
		b.team.Close()
		b.team = nil
	}
	b.release()
}

// release gives back the memory that no other block holds.
func (b *Block) release() {
	for _, l := range b.layers {
		l.drop()
	}
	if b.ends != nil {
		b.ends.drop()
	}
	_ = offheap.Free(b.memory)
	b.memory, b.layers, b.ends, b.scratch = nil, nil, &ends{}, scratch{}
}
