// Package kvcache keeps the keys and values of sequences, in pages.
//
// A shard makes one Pool for the layers it holds of a model, and a Sequence in it for every sequence that passes through;
// package model writes keys and values into a Sequence's pages and attends over them. A page holds one tile of positions of
// one layer, laid out as kernel.PageShape says; tiles are counted from position 0, so that attention walks the same tiles
// whatever pages they lie in. When a plan changes, the layers that stay are inherited by the sequence's next incarnation.
// Beside it the shard keeps a Log of the rows that left its block, in pages of a LogPool.
//
// What is whole stays when its sequence ends, for the next one that begins alike. Keep gives the pages of one tile in all
// layers, with that of the log, a name, which stands for all tokens up to the tile's end; together they are a column. Find
// takes columns over by their tokens. A column that no sequence holds is idle: it makes room for whatever runs, the one that
// has been idle for longest first. So sharing costs no room, and changes no bit: the keys, values and rows of a position are
// a function of the tokens up to it.
//
// Invariants: a Pool never takes more bytes than its limit. A page is free, or one sequence's own, or a column's; to a
// column's nobody writes: a sequence that goes back into one gets a copy, or, if it alone holds it, takes it back. The first
// pages of each of a sequence's lists are columns', the others its own. Positions below Len are stored; what pages hold above
// is what their last owner left there, and is never read.
//
// When no page is left, nor an idle one, Reserve refuses with ErrFull and takes nothing.
package kvcache

import (
	"errors"
	"fmt"

	"github.com/daisy-llm/daisy/model/kernel"
)

// PagePositions is the number of positions in a page.
const PagePositions = kernel.TilePositions

// ErrFull: the pool has not enough pages left.
var ErrFull = errors.New("the key and value cache is full")

// Type is how keys and values are stored.
type Type uint8

const (
	F16 Type = iota // half the memory and bandwidth; keys and values are rounded to 11 bits
	F32
)

func (t Type) String() string {
	if t == F32 {
		return "f32"
	}
	return "f16"
}

// Parse reads the value of --cache-type.
func Parse(s string) (Type, error) {
	switch s {
	case "f16":
		return F16, nil
	case "f32":
		return F32, nil
	}
	return 0, fmt.Errorf("cache type %.20q is not known: use f16 or f32", s)
}

func (t Type) format() kernel.Format {
	if t == F32 {
		return kernel.F32
	}
	return kernel.F16
}

// shape is a page's layout.
func shape(t Type, kvHeads, headDim int) kernel.PageShape {
	return kernel.PageShape{Format: t.format(), Heads: kvHeads, KeyDim: headDim, ValueDim: headDim}
}

// Bytes is what one layer needs for so many positions of one sequence: whole pages.
func Bytes(t Type, kvHeads, headDim, positions int) int64 {
	return int64(pages(positions)) * int64(shape(t, kvHeads, headDim).Bytes())
}

// pages is how many pages hold so many positions.
func pages(positions int) int { return (positions + PagePositions - 1) / PagePositions }
