package kernel

import (
	"fmt"
	"unsafe"
)

// TilePositions is the number of positions that attention takes at once, and that a page holds. Tiles are counted
// from position 0, so that position p is always in slot p mod 64 of tile p / 64.
const TilePositions = 64

// PageShape says what a page of the cache looks like: the keys and values of one tile of one layer. For each head it
// holds the keys, [64/16][KeyDim][16] with the position in the lane, and then the values, [64][ValueDim] with
// ValueDim padded to a multiple of 16. Heads are those of the keys and values, not of the queries.
type PageShape struct {
	Format           Format // F16 or F32
	Heads            int
	KeyDim, ValueDim int
}

// Page is one tile of one layer, PageShape.Bytes of memory aligned to 4, better 64. A page may be taken from and given
// back to a pool without clearing it: slots that were not stored are never used, whatever they hold.
type Page []byte

// Bytes is the size of a page.
func (p PageShape) Bytes() int { return p.Heads * p.headBytes() }

func (p PageShape) headBytes() int { return p.keyBytes() + p.valueBytes() }

func (p PageShape) keyBytes() int { return TilePositions * p.KeyDim * p.Format.blockBytes() }

func (p PageShape) valueBytes() int { return TilePositions * p.valueLanes() * p.Format.blockBytes() }

// valueLanes is ValueDim padded to whole vectors.
func (p PageShape) valueLanes() int { return (p.ValueDim + Lanes - 1) &^ (Lanes - 1) }

// head gives a head's keys and values.
func (p PageShape) head(page Page, head int) (keys, values []byte) {
	if head < 0 || head >= p.Heads || len(page) < p.Bytes() {
		panic(fmt.Sprintf("kernel: head %d in a page of %d bytes, want %d heads in %d", head, len(page), p.Heads, p.Bytes()))
	}
	b := page[head*p.headBytes():][:p.headBytes()]
	return b[:p.keyBytes()], b[p.keyBytes():]
}

func (p PageShape) check() {
	if p.Format != F16 && p.Format != F32 || p.Heads <= 0 || p.KeyDim <= 0 || p.ValueDim <= 0 {
		panic(fmt.Sprintf("kernel: page shape %+v", p))
	}
}

// Store rounds one head's key and value at a position to the page's format, and keeps them. The key has been rotated.
func (s *Set) Store(shape PageShape, page Page, head, position int, key, value []float32) {
	shape.check()
	if len(key) != shape.KeyDim || len(value) != shape.ValueDim {
		panic(fmt.Sprintf("kernel: store key of %d, value of %d into %+v", len(key), len(value), shape))
	}
	keys, values := shape.head(page, head)
	slot := position % TilePositions
	firstKey := slot/Lanes*Lanes*shape.KeyDim + slot%Lanes
	firstValue := slot * shape.valueLanes()
	if shape.Format == F32 {
		k := floats(keys)[firstKey:]
		for d, v := range key {
			k[d*Lanes] = v
		}
		copy(floats(values)[firstValue:], value)
		return
	}
	k := halves(keys)[firstKey:]
	var row [Lanes * 4]uint16
	for d := 0; d < len(key); d += len(row) {
		part := key[d:min(d+len(row), len(key))]
		s.FloatsToHalves(row[:len(part)], part)
		for i, h := range row[:len(part)] {
			k[(d+i)*Lanes] = h
		}
	}
	s.FloatsToHalves(halves(values)[firstValue:][:len(value)], value)
}

// FloatsToHalves rounds float32 to IEEE binary16: to nearest, ties to even.
func (s *Set) FloatsToHalves(dst []uint16, src []float32) {
	checkLengths("FloatsToHalves", len(dst), len(src))
	body := len(src) &^ (Lanes - 1)
	s.toHalves(dst[:body], src[:body])
	toHalvesReference(dst[body:], src[body:])
}

// HalvesToFloats gives the values of IEEE binary16.
func (s *Set) HalvesToFloats(dst []float32, src []uint16) {
	checkLengths("HalvesToFloats", len(dst), len(src))
	body := len(src) &^ (Lanes - 1)
	s.fromHalves(dst[:body], src[:body])
	fromHalvesReference(dst[body:], src[body:])
}

func toHalvesReference(dst []uint16, src []float32) {
	for i, v := range src {
		dst[i] = floatToHalf(v)
	}
}

func fromHalvesReference(dst []float32, src []uint16) {
	for i, v := range src {
		dst[i] = halfToFloat(v)
	}
}

// halves views bytes as binary16; the memory is aligned to 2.
func halves(b []byte) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/2)
}
