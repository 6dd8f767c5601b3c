package plan

import (
	"errors"
	"fmt"

	"github.com/daisy-llm/daisy/model"
)

// Shape is what a planner must know of a model, in plain numbers; all sizes are bytes.
type Shape struct {
	Model     string // for people
	Layers    []LayerSize
	Embedding int64 // token embedding; the first stage maps it from the file and looks rows up: no memory is reserved
	Head      int64 // packed output head, on the last stage; where it is tied to the embedding it is packed all the same
	Norm      int64 // final norm, on the last stage
	Scratch   int64 // buffers of a pass, on every shard
	Loading   int64 // what loading needs beyond the weights, on every shard; it is given back before Scratch is used
	Log       int64 // activations of one position that a shard keeps for replay
	Context   int   // positions of a sequence
	Parallel  int   // sequences cached at once
}

// LayerSize is the part of a Shape that one layer adds.
type LayerSize struct {
	Weights int64 // packed
	Cache   int64 // keys and values of one position
}

// Bounds that keep every sum and product of Solve within an int64.
const (
	maxLayers = 4096
	maxBytes  = 1 << 44 // of everything a model needs, 16 TiB
)

// Validate refuses shapes that no model has.
func (s *Shape) Validate() error {
	if len(s.Layers) == 0 {
		return errors.New("plan: the model has no layers")
	}
	if len(s.Layers) > maxLayers {
		return fmt.Errorf("plan: %d layers, more than %d", len(s.Layers), maxLayers)
	}
	if s.Context < 1 || s.Parallel < 1 || s.Context > maxBytes/s.Parallel {
		return fmt.Errorf("plan: a context of %d positions for %d sequences is not possible", s.Context, s.Parallel)
	}
	total := int64(0)
	add := func(n int64) bool {
		if n < 0 || n > maxBytes-total {
			return false
		}
		total += n
		return true
	}
	for i, l := range s.Layers {
		if l.Cache < 0 || l.Cache > maxBytes/s.positions() || !add(l.Weights) || !add(l.Cache*s.positions()) {
			return fmt.Errorf("plan: the sizes of layer %d are not possible", i)
		}
	}
	if s.Log < 0 || s.Log > maxBytes/s.positions() || !add(s.Log*s.positions()) {
		return errors.New("plan: the size of the activation logs is not possible")
	}
	if !add(s.Embedding) || !add(s.Head) || !add(s.Norm) || !add(s.Scratch) || !add(s.Loading) {
		return errors.New("plan: the sizes of embedding, head, norm or buffers are not possible")
	}
	return nil
}

// positions is how many positions every layer keeps a cache for.
func (s *Shape) positions() int64 { return int64(s.Context) * int64(s.Parallel) }

// working is what a shard needs besides weights and caches.
func (s *Shape) working() int64 { return max(s.Scratch, s.Loading) + s.Log*s.positions() }

// stage is what a stage of these layers holds; last: it holds the head too.
func (s *Shape) stage(layers model.Layers, last bool) Stage {
	stage := Stage{Layers: layers, First: layers.First == 0, Last: last, Scratch: s.working()}
	for _, l := range s.Layers[layers.First:layers.Last] {
		stage.Weights += l.Weights
		stage.Cache += l.Cache * s.positions()
	}
	if stage.First {
		stage.Mapped = s.Embedding
	}
	if stage.Last {
		stage.Weights += s.Head + s.Norm
	}
	return stage
}
