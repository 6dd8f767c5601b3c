package model

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/offheap"
)

// Options says how a Block is loaded and run. None of them changes a bit of what it computes.
type Options struct {
	Embedding bool        // it is the first block: it embeds tokens
	Head      bool        // it is the last block: it has the final norm and the output head
	Kernels   *kernel.Set // nil: the fastest
	Threads   int         // workers that share a pass; 0: one for every core
	MaxRows   int         // positions computed at once; longer passes are cut. More need more scratch; 0: 128

	// Progress, if not nil, is told the bytes of weights packed so far and in all. Calls do not overlap.
	Progress func(done, total int64)
}

// Bounds of Options.
const (
	MaxThreads = 1024
	MaxMaxRows = 1 << 16
)

func (o *Options) fill() error {
	if o.Kernels == nil {
		o.Kernels = kernel.Best()
	}
	if o.Threads == 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	if o.MaxRows == 0 {
		o.MaxRows = 128
	}
	if o.Threads < 1 || o.Threads > MaxThreads || o.MaxRows < 1 || o.MaxRows > MaxMaxRows {
		return fmt.Errorf("%d threads and %d rows: 1 to %d and 1 to %d are possible", o.Threads, o.MaxRows, MaxThreads, MaxMaxRows)
	}
	return nil
}

// LoadBlock reads the tensors of a block from the file and packs them, in parallel, into memory of its own; the file's
// pages are released as it goes. The file must stay open as long as the Block is used, if it embeds. cfg is the file's.
func LoadBlock(ctx context.Context, f *gguf.File, cfg *Config, layers Layers, o Options) (*Block, error) {
	b, err := loadBlock(ctx, f, cfg, layers, o)
	if err != nil {
		return nil, fmt.Errorf("load layers %v: %w", layers, err)
	}
	return b, nil
}

func loadBlock(ctx context.Context, f *gguf.File, cfg *Config, layers Layers, o Options) (_ *Block, err error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	if layers.First < 0 || layers.Last < layers.First || int(layers.Last) > cfg.Layers {
		return nil, fmt.Errorf("there is no block [%d, %d) in a model of %d layers", layers.First, layers.Last, cfg.Layers)
	}
	b := &Block{cfg: cfg, first: layers.First, kernels: o.Kernels, maxRows: o.MaxRows}
	var matrices []*matrix
	var vectors []*vector
	for index := layers.First; index < layers.Last; index++ {
		l, err := describeLayer(f, cfg, index)
		if err != nil {
			return nil, err
		}
		b.layers = append(b.layers, l)
		matrices = append(matrices, l.matrices()...)
		vectors = append(vectors, l.vectors()...)
	}
	if b.ends, err = describeEnds(f, cfg, o.Embedding, o.Head); err != nil {
		return nil, err
	}
	if o.Head {
		matrices = append(matrices, &b.ends.head)
		vectors = append(vectors, &b.ends.norm)
	}
	if b.angles, err = newAngles(f, cfg); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.release()
		}
	}()
	for _, v := range vectors {
		v.load()
		b.resident += v.bytes()
	}
	if err := b.loadMatrices(ctx, f, matrices, o); err != nil {
		return nil, err
	}
	var uses needs
	for _, m := range matrices {
		uses.add(m.Format)
	}
	if err := b.makeScratch(uses, o.Threads); err != nil {
		return nil, err
	}
	b.start(o.Threads)
	return b, nil
}

// jobBytes of a matrix are packed at a time: small enough to share work evenly and to notice a cancelled context.
const jobBytes = 1 << 20

// job is a part of a matrix to pack.
type job struct {
	matrix   *matrix
	data     [][]byte // of all its sources
	left     *atomic.Int32
	from, to int // groups
	bytes    int64
}

// loadMatrices places all matrices in one piece of memory and packs them.
func (b *Block) loadMatrices(ctx context.Context, f *gguf.File, matrices []*matrix, o Options) error {
	total := int64(0)
	for _, m := range matrices {
		total += m.packedBytes()
		b.resident += m.bytes()
	}
	if total == 0 {
		return ctx.Err()
	}
	memory, err := offheap.Alloc(int(total))
	if err != nil {
		return err
	}
	b.weights = memory
	var jobs []job
	for _, m := range matrices {
		m.Matrix = kernel.NewMatrix(memory, m.Format, m.Rows, m.Cols)
		memory = memory[m.packedBytes():]
		m.loadBias()
		jobs = append(jobs, m.jobs()...)
	}
	return pack(ctx, f, jobs, o, total)
}

// jobs cuts the packing of a matrix.
func (m *matrix) jobs() []job {
	groups := m.Groups()
	bytes := m.Bytes() / groups
	step := max(1, jobBytes/bytes)
	left := new(atomic.Int32)
	var data [][]byte
	for _, t := range m.sources {
		data = append(data, t.Data)
	}
	var jobs []job
	for from := 0; from < groups; from += step {
		to := min(from+step, groups)
		jobs = append(jobs, job{m, data, left, from, to, int64((to - from) * bytes)})
	}
	left.Store(int32(len(jobs)))
	return jobs
}

// pack does the jobs on as many goroutines as there are threads.
func pack(ctx context.Context, f *gguf.File, jobs []job, o Options, total int64) error {
	var (
		next   atomic.Int64
		done   int64
		report sync.Mutex
		all    sync.WaitGroup
	)
	work := func() {
		for ctx.Err() == nil {
			i := int(next.Add(1)) - 1
			if i >= len(jobs) {
				return
			}
			j := &jobs[i]
			j.matrix.Pack(j.from, j.to, j.data...)
			if j.left.Add(-1) == 0 {
				for _, t := range j.matrix.sources {
					f.Release(t)
				}
			}
			if o.Progress != nil {
				report.Lock()
				done += j.bytes
				o.Progress(done, total)
				report.Unlock()
			}
		}
	}
	for range min(o.Threads, len(jobs)) {
		all.Go(work)
	}
	all.Wait()
	return ctx.Err()
}
