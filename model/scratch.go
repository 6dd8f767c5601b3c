package model

import (
	"unsafe"

	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/offheap"
	"github.com/daisy-llm/daisy/model/token"
)

// needs says which kinds of activations a block's products take.
type needs struct{ quantized, floats bool }

func (n *needs) add(f kernel.Format) {
	if f.Quantized() {
		n.quantized = true
	} else {
		n.floats = true
	}
}

// scratch is a block's buffers, for up to maxRows rows at once.
type scratch struct {
	uses needs
	rows []row // (rows) of the chunk in hand
	lots []lot // of these rows

	cos, sin               []float32 // (rows, pairs)
	slidingCos, slidingSin []float32 // (rows, pairs); the same memory if the angles are
	qkv                    []float32 // (rows, queries | keys | values)
	attended               []float32 // (rows, heads, headDim)
	gate, up               []float32 // (rows, feedForward)
	product                []float32 // (rows, hidden), what a product adds to the stream

	ofHidden, ofAttended, ofGated inputMemory // activations of the products of that width

	workers []worker
}

// row is one position in a chunk.
type row struct {
	cache    *kvcache.Sequence
	position token.Position
}

// lot is rows of a chunk, from row on, that attend together.
type lot struct{ row, rows int }

// worker is what each worker has for itself.
type worker struct {
	normed    []float32 // (hidden)
	attention kernel.Attention
	scratch   *kernel.AttentionScratch
	_         [64]byte // no two workers share a cache line
}

// inputMemory holds the activations of products, of either kind.
type inputMemory struct{ quantized, floats []byte }

// arena hands out pieces of memory; without memory it only counts.
type arena struct {
	memory []byte
	used   int64
}

func (a *arena) bytes(n int) []byte {
	from := a.used
	a.used = (a.used + int64(n) + 63) &^ 63
	if a.memory == nil || n == 0 {
		return nil
	}
	return a.memory[from : from+int64(n) : from+int64(n)]
}

func (a *arena) floats(n int) []float32 {
	b := a.bytes(4 * n)
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

// inputs places the kinds that matrices with so many columns can take.
func (a *arena) inputs(uses needs, rows, cols int) (m inputMemory) {
	if uses.quantized && kernel.Q8_0.ValidCols(cols) {
		m.quantized = a.bytes(kernel.ActivationBytes(kernel.Q8_0, rows, cols))
	}
	if uses.floats {
		m.floats = a.bytes(kernel.ActivationBytes(kernel.F32, rows, cols))
	}
	return m
}

// lay places all buffers in the arena.
func (s *scratch) lay(a *arena, cfg *Config, uses needs, rows, threads int, oneAngle bool) {
	s.uses = uses
	pairs := cfg.Rope.Dims / 2
	s.cos, s.sin = a.floats(rows*pairs), a.floats(rows*pairs)
	s.slidingCos, s.slidingSin = s.cos, s.sin
	if !oneAngle {
		s.slidingCos, s.slidingSin = a.floats(rows*pairs), a.floats(rows*pairs)
	}
	s.qkv = a.floats(rows * cfg.qkvDim())
	s.attended = a.floats(rows * cfg.queryDim())
	s.gate, s.up = a.floats(rows*cfg.FeedForward), a.floats(rows*cfg.FeedForward)
	s.product = a.floats(rows * cfg.Hidden)
	s.ofHidden = a.inputs(uses, rows, cfg.Hidden)
	s.ofAttended = a.inputs(uses, rows, cfg.queryDim())
	s.ofGated = a.inputs(uses, rows, cfg.FeedForward)
	for range threads {
		s.workers = append(s.workers, worker{normed: a.floats(cfg.Hidden)})
	}
}

// makeScratch allocates the buffers.
func (b *Block) makeScratch(uses needs, threads int) error {
	memory, err := offheap.Alloc(int(arenaBytes(b.cfg, uses, b.maxRows, threads)))
	if err != nil {
		return err
	}
	b.memory = memory
	b.lay(&arena{memory: memory}, b.cfg, uses, b.maxRows, threads, b.angles.same)
	b.scratch.rows = make([]row, b.maxRows)
	b.lots = make([]lot, 0, b.maxRows)
	page := kernel.PageShape{Format: kernel.F32, Heads: b.cfg.KVHeads, KeyDim: b.cfg.HeadDim, ValueDim: b.cfg.HeadDim}
	for i := range b.workers {
		b.workers[i].scratch = kernel.NewAttentionScratch(page, attentionRows(b.cfg)*b.cfg.Heads/b.cfg.KVHeads)
	}
	return nil
}

// attentionRows is how many rows a worker attends with at once, a power of two: enough that their work outweighs reading and
// widening keys and values, and so few that what they leave behind stays in the second-level cache beside a tile.
func attentionRows(cfg *Config) int {
	const queries = 128
	rows := 1
	for 2*rows*cfg.Heads/cfg.KVHeads <= queries && rows < kernel.TilePositions {
		rows *= 2
	}
	return rows
}

// arenaBytes is the memory of the buffers, less a few that lie on the Go heap.
func arenaBytes(cfg *Config, uses needs, rows, threads int) int64 {
	var a arena
	var s scratch
	s.lay(&a, cfg, uses, rows, threads, false)
	return a.used
}
