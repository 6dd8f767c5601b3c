package main

import (
	"errors"
	"fmt"

	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/shard"
)

const (
	// defaultContext bounds the context where nobody asks for one: models made for 128 Ki positions would otherwise
	// reserve more for their caches than for their weights.
	defaultContext  = 4096
	defaultParallel = 4
	maxParallel     = 4096

	contextUsage = "positions a sequence may have (default: what the model was made for, at most 4096)"
)

// shapeOptions are the flags that a model's memory depends on.
type shapeOptions struct {
	Context   int // 0: the default
	Parallel  int
	CacheType string
	Threads   int // of a shard
}

// measureModel reads from a file what a planner must know of its model. It reads metadata only.
func measureModel(name, path string, o shapeOptions) (*model.Config, plan.Shape, error) {
	file, err := gguf.Open(path)
	if err != nil {
		return nil, plan.Shape{}, err // it names the file
	}
	defer file.Close()
	cfg, err := model.ReadConfig(file)
	if err != nil {
		return nil, plan.Shape{}, fmt.Errorf("read the model %s: %w", name, err)
	}
	sizes, err := model.SizesOf(file, cfg)
	if err != nil {
		return nil, plan.Shape{}, fmt.Errorf("measure the model %s: %w", name, err)
	}
	shape, err := planShape(name, cfg, sizes, o)
	if err != nil {
		return nil, plan.Shape{}, err
	}
	return cfg, shape, nil
}

// planShape says in a planner's words what a model needs.
func planShape(name string, cfg *model.Config, sizes *model.Sizes, o shapeOptions) (plan.Shape, error) {
	cache, err := kvcache.Parse(o.CacheType)
	if err != nil {
		return plan.Shape{}, err
	}
	context, err := contextFor(cfg, o.Context)
	if err != nil {
		return plan.Shape{}, err
	}
	if o.Parallel < 1 || o.Parallel > maxParallel {
		return plan.Shape{}, fmt.Errorf("%d sequences at once are not possible: use 1 to %d", o.Parallel, maxParallel)
	}
	shape := plan.Shape{
		Model:     name,
		Embedding: sizes.Embedding,
		Head:      sizes.Head,
		Norm:      sizes.Norm,
		Scratch:   sizes.Scratch(shard.MaxRows, max(1, o.Threads)) + shard.MaxHeadRows*int64(cfg.Vocab)*4,
		Loading:   sizes.Loading * int64(max(1, o.Threads)),
		Log:       kvcache.LogBytes(cfg.Hidden, kvcache.PagePositions) / kvcache.PagePositions,
		Context:   context,
		Parallel:  o.Parallel,
	}
	// Whole pages are reserved for a sequence.
	pages := (context + kvcache.PagePositions - 1) / kvcache.PagePositions
	position := (cfg.CacheBytes(cache)*int64(pages)*kvcache.PagePositions + int64(context) - 1) / int64(context)
	for _, weights := range sizes.Layers {
		shape.Layers = append(shape.Layers, plan.LayerSize{Weights: weights, Cache: position})
	}
	return shape, nil
}

// contextFor is the context to use, where so many positions were asked for.
func contextFor(cfg *model.Config, asked int) (int, error) {
	switch {
	case asked == 0:
		return min(cfg.Context, defaultContext), nil
	case asked < 0:
		return 0, fmt.Errorf("a context of %d positions is not possible", asked)
	case asked > cfg.Context:
		return 0, fmt.Errorf("a context of %d positions is not possible: the model was made for at most %d", asked, cfg.Context)
	}
	return asked, nil
}

// advise says what to do where memory is short.
func advise(err error) error {
	if !errors.As(err, new(*plan.ShortError)) {
		return err
	}
	return fmt.Errorf("%w: offer more with --memory, or lower --context or --parallel", err)
}
