package main

import (
	"context"
	"fmt"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/shard"
)

// wholeRows is how many positions of a prompt are computed at once. A pipeline takes fewer, to keep several stages busy; here
// the weights are unpacked less often instead.
const wholeRows = 256

// whole is a whole model in this process, with one sequence: what is measured without a cluster around it.
type whole struct {
	file    *gguf.File
	cfg     *model.Config
	block   *model.Block
	pool    *kvcache.Pool
	entry   [1]model.Entry
	x       []float32 // (wholeRows, hidden)
	logits  []float32 // (shard.MaxHeadRows, vocab)
	weights int64     // bytes of packed weights, all of which every token reads
}

// wholeOptions say how the model is loaded.
type wholeOptions struct {
	Context   int // positions of the sequence
	Threads   int // 0: one for every core
	CacheType kvcache.Type
	Kernels   *kernel.Set
	Progress  func(done, total int64)
}

// loadWhole loads all layers and both ends.
func loadWhole(ctx context.Context, path string, o wholeOptions) (_ *whole, err error) {
	file, err := gguf.Open(path)
	if err != nil {
		return nil, err // it names the file
	}
	w := &whole{file: file}
	defer func() {
		if err != nil {
			w.close()
			err = fmt.Errorf("load %s: %w", path, err)
		}
	}()
	if w.cfg, err = model.ReadConfig(file); err != nil {
		return nil, err
	}
	if o.Context, err = contextFor(w.cfg, o.Context); err != nil {
		return nil, err
	}
	sizes, err := model.SizesOf(file, w.cfg)
	if err != nil {
		return nil, err
	}
	layers := model.Layers{First: 0, Last: model.LayerIndex(w.cfg.Layers)}
	w.weights = sizes.Block(layers, true)
	caches := kvcache.Bytes(o.CacheType, w.cfg.KVHeads, w.cfg.HeadDim, o.Context) * int64(w.cfg.Layers)
	if err := enoughMemory(w.weights + caches + sizes.Scratch(wholeRows, max(1, o.Threads))); err != nil {
		return nil, err
	}
	if w.block, err = model.LoadBlock(ctx, file, w.cfg, layers, model.Options{
		Embedding: true, Head: true, Kernels: o.Kernels, Threads: o.Threads, MaxRows: wholeRows, Progress: o.Progress,
	}); err != nil {
		return nil, err
	}
	if w.pool, err = kvcache.NewPool(kvcache.Config{
		Type: o.CacheType, KVHeads: w.cfg.KVHeads, HeadDim: w.cfg.HeadDim, Bytes: caches,
	}); err != nil {
		return nil, err
	}
	w.entry[0].Cache = w.pool.NewSequence(w.cfg.Layers)
	w.x = make([]float32, wholeRows*w.cfg.Hidden)
	w.logits = make([]float32, shard.MaxHeadRows*w.cfg.Vocab)
	return w, nil
}

// enoughMemory refuses what would not fit; where nobody knows how much there is, it is tried.
func enoughMemory(need int64) error {
	if offered, err := memoryFor("", 1); err == nil && need > offered {
		return fmt.Errorf("it needs %s of memory, and %s are available", formatSize(need), formatSize(offered))
	}
	return nil
}

// close gives everything back.
func (w *whole) close() error {
	if w.block != nil {
		w.block.Close()
	}
	if w.pool != nil {
		w.pool.Close()
	}
	return w.file.Close()
}

// step runs at most wholeRows tokens at the positions from first on; what was cached from there on is dropped. It returns
// the last layer's outputs, (len(ids), hidden), which stay valid until the next step.
func (w *whole) step(ids []token.ID, first token.Position) ([]float32, error) {
	x := w.x[:len(ids)*w.cfg.Hidden]
	if err := w.block.Embed(x, ids); err != nil {
		return nil, err
	}
	w.entry[0].First, w.entry[0].Count = first, len(ids)
	return x, w.block.Forward(x, w.entry[:])
}

// head gives the logits, (rows, vocab), of at most shard.MaxHeadRows outputs; they stay valid until it is called again.
func (w *whole) head(x []float32) ([]float32, error) {
	logits := w.logits[:len(x)/w.cfg.Hidden*w.cfg.Vocab]
	return logits, w.block.Head(logits, x)
}

// modelPath finds a model, fetching it if need be.
func (c *cli) modelPath(ctx context.Context, name string) (string, error) {
	store, err := c.store()
	if err != nil {
		return "", err
	}
	local, err := c.resolve(ctx, store, name)
	return local.Path, err
}
