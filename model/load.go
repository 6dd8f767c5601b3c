package model

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
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

	Lent []*Lent // weights of the same file that need not be read again
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

// LoadBlock reads the tensors of a block once, in the order of the file, and packs them, in parallel, into memory off the Go
// heap; the file's pages are released as it goes. The file must stay open as long as the Block is used, if it embeds. cfg is
// the file's.
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
	defer func() {
		if err != nil {
			b.release()
		}
	}()
	var missing []piece
	for index := layers.First; index < layers.Last; index++ {
		l := o.lentLayer(index)
		if l == nil {
			if l, err = describeLayer(f, cfg, index); err != nil {
				return nil, err
			}
			l.shared = &shared{}
			missing = append(missing, l)
		}
		l.hold()
		b.layers = append(b.layers, l)
	}
	if b.ends, err = describeEnds(f, cfg, o.Embedding, o.Head); err != nil {
		return nil, err
	}
	if o.Head {
		if lent := o.lentEnds(); lent != nil {
			b.ends.head, b.ends.norm, b.ends.shared = lent.head, lent.norm, lent.shared
		} else {
			b.ends.shared = &shared{}
			missing = append(missing, b.ends)
		}
		b.ends.hold()
	}
	if b.angles, err = newAngles(f, cfg); err != nil {
		return nil, err
	}
	if err := loadPieces(ctx, f, missing, o); err != nil {
		return nil, err
	}
	var uses needs
	for _, p := range b.pieces() {
		b.resident += bytesOf(p)
		for _, m := range p.matrices() {
			uses.add(m.Format)
		}
	}
	if err := b.makeScratch(uses, o.Threads); err != nil {
		return nil, err
	}
	f.ReleaseAll() // what describing it, and reading ahead, have left
	b.start(o.Threads)
	return b, nil
}

// pieces are the layers and the ends.
func (b *Block) pieces() []piece {
	pieces := make([]piece, 0, len(b.layers)+1)
	for _, l := range b.layers {
		pieces = append(pieces, l)
	}
	return append(pieces, b.ends)
}

// lentLayer is a layer that need not be loaded, or nil.
func (o *Options) lentLayer(index LayerIndex) *layer {
	for _, lent := range o.Lent {
		if l := lent.layer(index); l != nil {
			return l
		}
	}
	return nil
}

// lentEnds are ends with a head that need not be loaded, or nil.
func (o *Options) lentEnds() *ends {
	for _, lent := range o.Lent {
		if lent.ends.shared != nil {
			return lent.ends
		}
	}
	return nil
}

// loadPieces loads the vectors, and packs the matrices into one stretch of memory each.
func loadPieces(ctx context.Context, f *gguf.File, pieces []piece, o Options) error {
	total := int64(0)
	var jobs []job
	for _, p := range pieces {
		for _, v := range p.vectors() {
			v.load()
		}
		size := int64(0)
		for _, m := range p.matrices() {
			size += m.packedBytes()
		}
		if size == 0 {
			continue
		}
		total += size
		memory, err := offheap.Alloc(int(size))
		if err != nil {
			return err
		}
		p.place(memory)
		for _, m := range p.matrices() {
			m.Matrix = kernel.NewMatrix(memory, m.Format, m.Rows, m.Cols)
			memory = memory[m.packedBytes():]
			m.loadBias()
			jobs = append(jobs, m.jobs()...)
		}
	}
	if len(jobs) == 0 {
		return ctx.Err()
	}
	slices.SortStableFunc(jobs, func(a, b job) int { return cmp.Compare(a.matrix.sources[0].Offset, b.matrix.sources[0].Offset) })
	return pack(ctx, f, jobs, o, total)
}

// jobBytes of a matrix are packed at a time: small enough to share work evenly and to notice a cancelled context.
const jobBytes = 1 << 20

// job is a part of a matrix to pack.
type job struct {
	matrix   *matrix
	data     [][]byte // of all its sources
	from, to int      // groups
	bytes    int64
}

// jobGroups is how many groups of the matrix a job packs, and the memory that each takes.
func (m *matrix) jobGroups() (groups, bytes int) {
	bytes = kernel.PackedSize(m.Format, m.Rows, m.Cols) / m.Groups()
	return max(1, jobBytes/bytes), bytes
}

// jobs cuts the packing of a matrix.
func (m *matrix) jobs() []job {
	groups := m.Groups()
	step, bytes := m.jobGroups()
	var data [][]byte
	for _, t := range m.sources {
		data = append(data, t.Data)
	}
	var jobs []job
	for from := 0; from < groups; from += step {
		to := min(from+step, groups)
		jobs = append(jobs, job{m, data, from, to, int64((to - from) * bytes)})
	}
	return jobs
}

// release gives back the file's pages of what the job has packed. A neighbour that still reads from a page at the edge finds it
// in the page cache.
func (j *job) release(f *gguf.File) {
	from, to := j.from*kernel.Lanes, min(j.to*kernel.Lanes, j.matrix.Rows)
	for _, t := range j.matrix.sources {
		rows := t.Rows()
		if first, last := max(from, 0), min(to, rows); first < last {
			bytes := len(t.Data) / rows
			f.Release(t, first*bytes, last*bytes)
		}
		from, to = from-rows, to-rows
	}
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
			j.release(f)
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
