package shard

import (
	"context"
	"errors"
	"fmt"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/pass"
)

// kind is what blocks must have in common to share weights and caches.
type kind struct {
	sha256            string
	context, parallel int
	cache             kvcache.Type
}

func kindOf(l pass.Load) kind { return kind{l.SHA256, l.Context, l.Parallel, l.CacheType} }

// holding is what the blocks of one kind have in common, whatever plan they belong to: weights and caches belong to layers,
// and a layer counts once. Its counts are guarded by the shard's mutex.
type holding struct {
	kind  kind
	file  *gguf.File // mapped: embedding rows are looked up in it
	cfg   *model.Config
	sizes *model.Sizes
	pool  *kvcache.Pool
	logs  *kvcache.LogPool

	blocks int                      // loaded or being loaded
	layers map[model.LayerIndex]int // blocks that have it
	heads  int                      // blocks that have the head
	logged int                      // blocks that log what leaves them

	// Blocks with layers or head. Each has buffers, but those of one count: only while plans change are there two.
	computing int

	sequences int // cached; the loop's own
}

// logs says whether a block keeps an activation log: nobody computes anything again from what leaves the last one.
func logs(l pass.Load) bool { return !l.Last && l.Layers.Len() > 0 }

// computes says whether a block does anything at all; one that does not is a trial of the model's file.
func computes(l pass.Load) bool { return l.Last || l.Layers.Len() > 0 }

// hold counts a block in, opening the model's file for the first of its kind, and reserves the memory that it adds.
func (s *Shard) hold(ctx context.Context, load pass.Load) (*holding, error) {
	k := kindOf(load)
	s.mu.Lock()
	t := s.holdings[k]
	if t != nil {
		t.blocks++ // it stays
	}
	s.mu.Unlock()
	if t == nil {
		var err error
		if t, err = s.open(ctx, load); err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.holdings[k] = t
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reserveLocked(t, load); err != nil {
		return nil, errors.Join(err, s.leaveLocked(t))
	}
	return t, nil
}

// reserveLocked takes the memory that a block adds.
func (s *Shard) reserveLocked(t *holding, load pass.Load) error {
	if err := checkLoad(load, t.cfg); err != nil {
		return err
	}
	need := t.need(load, s.cfg.Threads)
	if s.cfg.Memory > 0 && need > s.cfg.Memory-s.reserved {
		return fmt.Errorf("%w: the block needs %d MiB with its caches, %d MiB are on offer, and other blocks have %d of them",
			ErrMemory, need>>20, s.cfg.Memory>>20, s.reserved>>20)
	}
	if need > 0 && s.cfg.Room != nil { // what would not fit is refused, and not killed by the system
		if room, err := s.cfg.Room(); err == nil && need > room-s.reserved {
			return fmt.Errorf("%w: the block needs %d MiB with its caches, %d MiB were on offer, of which other blocks have %d, but this machine has only %d MiB left: other programs have the rest",
				ErrMemory, need>>20, s.cfg.Memory>>20, s.reserved>>20, max(0, room-s.reserved)>>20)
		}
	}
	s.reserved += need
	t.count(load, 1)
	return nil
}

// drop counts a block out and gives back the memory that only it needed.
func (s *Shard) drop(t *holding, load pass.Load) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.count(load, -1)
	s.reserved -= t.need(load, s.cfg.Threads)
	return s.leaveLocked(t)
}

// leaveLocked closes a holding without blocks.
func (s *Shard) leaveLocked(t *holding) error {
	if t.blocks--; t.blocks > 0 {
		return nil
	}
	delete(s.holdings, t.kind)
	return errors.Join(t.pool.Close(), t.logs.Close(), t.file.Close())
}

// open reads what must be known of a model before a block of it is loaded.
func (s *Shard) open(ctx context.Context, load pass.Load) (_ *holding, err error) {
	file, err := s.cfg.Open(ctx, load)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	t := &holding{kind: kindOf(load), file: file, blocks: 1, layers: make(map[model.LayerIndex]int)}
	if t.cfg, err = model.ReadConfig(file); err != nil {
		return nil, err
	}
	if t.sizes, err = model.SizesOf(file, t.cfg); err != nil {
		return nil, err
	}
	if t.pool, err = kvcache.NewPool(kvcache.Config{Type: load.CacheType, KVHeads: t.cfg.KVHeads, HeadDim: t.cfg.HeadDim}); err != nil {
		return nil, err
	}
	t.logs, err = t.pool.NewLogPool(t.cfg.Hidden, 0)
	return t, err
}

// need is how many bytes a block adds to what is held, caches, logs and buffers included. For a trial there is
// always room.
func (t *holding) need(load pass.Load, threads int) int64 {
	if !computes(load) {
		return 0
	}
	need := int64(0)
	if t.computing == 0 {
		need += t.sizes.Scratch(MaxRows, threads)
	}
	for l := load.Layers.First; l < load.Layers.Last; l++ {
		if t.layers[l] == 0 {
			need += t.sizes.Block(model.Layers{First: l, Last: l + 1}, false) + t.layerCache()
		}
	}
	if load.Last && t.heads == 0 {
		need += t.sizes.Block(model.Layers{}, true)
	}
	if logs(load) && t.logged == 0 {
		need += t.logBytes()
	}
	return need
}

// count adds a block to the counts, or takes it off, and gives the caches the room that belongs to the layers held.
func (t *holding) count(load pass.Load, n int) {
	for l := load.Layers.First; l < load.Layers.Last; l++ {
		if t.layers[l] += n; t.layers[l] == 0 {
			delete(t.layers, l)
			t.pool.Forget(int(l))
		}
	}
	if load.Last {
		t.heads += n
	}
	if computes(load) {
		t.computing += n
	}
	if logs(load) {
		t.logged += n
	}
	t.pool.Resize(int64(len(t.layers)) * t.layerCache())
	t.logs.Resize(int64(min(1, t.logged)) * t.logBytes())
}

// layerCache is the memory of one layer's keys and values of every sequence that may be cached at once.
func (t *holding) layerCache() int64 {
	return kvcache.Bytes(t.kind.cache, t.cfg.KVHeads, t.cfg.HeadDim, t.kind.context) * int64(t.kind.parallel)
}

// logBytes is the memory of their activation logs.
func (t *holding) logBytes() int64 {
	return kvcache.LogBytes(t.cfg.Hidden, t.kind.context) * int64(t.kind.parallel)
}
