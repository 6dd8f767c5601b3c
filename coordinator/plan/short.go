package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

var (
	// ErrNoShards: the roster has no shard that can be planned on.
	ErrNoShards = errors.New("no shards")
	// ErrFewShards: more stages were asked for than there are shards.
	ErrFewShards = errors.New("too few shards")
)

// ShortError says that the shards' memory does not suffice, and by how much; all sizes are bytes.
type ShortError struct {
	Model   string
	Needed  int64  // in total
	Offered int64  // in total
	Missing int64  // above 0
	Detail  string // set where the total would do, but no cut fits: why
}

func (e *ShortError) Error() string {
	if e.Detail != "" {
		return fmt.Sprintf("not enough memory for %s: it needs %s and the shards offer %s, but %s: %s missing",
			e.Model, formatBytes(e.Needed), formatBytes(e.Offered), e.Detail, formatBytes(e.Missing))
	}
	return fmt.Sprintf("not enough memory for %s: it needs %s, the shards offer %s: %s missing",
		e.Model, formatBytes(e.Needed), formatBytes(e.Offered), formatBytes(e.Missing))
}

// formatBytes writes a size as people read it: "3.2 GiB".
func formatBytes(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n)/1024, 0
	for size >= 1023.95 && unit < len(units)-1 {
		size, unit = size/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", size, units[unit])
}

// short says why nothing fits, when at most the first items of the model could be placed.
func (p *problem) short(furthest int) *ShortError {
	e := &ShortError{Model: p.shape.Model, Needed: p.memory[p.items()]}
	offers := []int64{0}
	useful := int64(0)
	for _, s := range p.shards {
		e.Offered += max(0, s.memory)
		offers = append(offers, s.memory)
		if s.memory > p.working {
			useful++
		}
	}
	slices.SortFunc(offers, func(a, b int64) int { return cmp.Compare(b, a) })
	largest := offers[0]
	// Every shard that has room for more than its buffers has these too.
	e.Needed += p.working * max(1, useful)
	if e.Missing = e.Needed - e.Offered; e.Missing > 0 {
		return e
	}
	for i := range p.items() {
		if missing := p.need(i, i+1) - largest; missing > e.Missing {
			e.Missing = missing
			e.Detail = fmt.Sprintf("%s needs %s on one shard and the largest offers %s", p.name(i, i+1), formatBytes(p.need(i, i+1)), formatBytes(largest))
		}
	}
	if e.Missing > 0 {
		return e
	}
	if furthest < p.items() {
		e.Missing = p.need(furthest, p.items())
		e.Detail = fmt.Sprintf("however it is cut, %s fits nowhere", p.name(furthest, p.items()))
		return e
	}
	// Only a number of stages that was asked for can be in the way.
	smallest := p.need(0, 1)
	for i := range len(p.shape.Layers) {
		smallest = min(smallest, p.need(i, i+1))
	}
	e.Missing = max(1, smallest-offers[p.stages-1])
	e.Detail = fmt.Sprintf("not cut into %d stages that each hold a layer", p.stages)
	return e
}

// name is how people call a piece.
func (p *problem) name(from, to int) string {
	layers := p.layersOf(from, to)
	switch {
	case layers.Len() == 0:
		return "the head"
	case to == p.items():
		return fmt.Sprintf("layer %s with the head", layers)
	}
	return fmt.Sprintf("layer %s", layers)
}
