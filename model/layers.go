package model

import "fmt"

// LayerIndex is the N of GGUF's blk.N.
type LayerIndex int

// Layers is the contiguous range [First, Last) of transformer layers that a block holds; it may be empty.
type Layers struct{ First, Last LayerIndex }

// Len is the number of layers in the range.
func (l Layers) Len() int { return int(l.Last - l.First) }

// String gives "3-7" for [3, 8): both ends included, as people count.
func (l Layers) String() string {
	switch l.Len() {
	case 0:
		return "none"
	case 1:
		return fmt.Sprint(int(l.First))
	}
	return fmt.Sprintf("%d-%d", l.First, l.Last-1)
}
