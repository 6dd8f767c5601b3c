package shard

import (
	"context"
	"sync/atomic"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/pass"
)

// reads says whether a block is made of any of the file's tensors; a trial is not.
func reads(l pass.Load) bool { return computes(l) || l.First }

// fetch has the bytes of a block brought into the model's file, where some are missing. It returns how many came.
func (s *Shard) fetch(ctx context.Context, t *holding, load pass.Load, progress func(pass.LoadProgress)) (int64, error) {
	if s.cfg.Fetch == nil || !reads(load) {
		return 0, nil
	}
	tensors, err := model.Tensors(t.file, t.cfg, load.Layers, load.First, load.Last)
	if err != nil {
		return 0, err
	}
	packing := t.sizes.Block(load.Layers, load.Last) // is still to come
	var fetched atomic.Int64
	err = s.cfg.Fetch(ctx, load, tensors, func(done, total int64) {
		s.steps.Add(uint64(max(0, done-fetched.Swap(done))))
		progress(pass.LoadProgress{Done: done, Total: total + packing})
	})
	return fetched.Load(), err
}

// keep says which of a file's bytes are still needed. It says nothing while a block is being prepared, which needs others and
// will say so when it is there, nor where no block is left: the next one may be the same.
func (s *Shard) keep(ctx context.Context, t *holding) {
	if s.cfg.Keep == nil {
		return
	}
	select {
	case s.preparing <- struct{}{}:
		defer func() { <-s.preparing }()
	default:
		return
	}
	s.mu.Lock()
	open := s.holdings[t.kind] == t
	if open {
		t.blocks++ // so that the file stays open
	}
	s.mu.Unlock()
	if !open {
		return
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := s.leaveLocked(t); err != nil {
			s.cfg.Log.Warn("close a model", "error", err)
		}
	}()
	var loads []pass.Load
	if err := s.do(ctx, func() {
		for _, h := range s.blocks {
			if h.load.SHA256 == t.kind.sha256 && reads(h.load) {
				loads = append(loads, h.load)
			}
		}
	}); err != nil || len(loads) == 0 {
		return
	}
	var needed []*gguf.Tensor
	for _, l := range loads {
		tensors, err := model.Tensors(t.file, t.cfg, l.Layers, l.First, l.Last)
		if err != nil {
			return // such a block was never loaded
		}
		needed = append(needed, tensors...)
	}
	s.cfg.Keep(loads[0], needed)
}
