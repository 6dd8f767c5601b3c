package main

import "fmt"

// weights is a packed format of integers. Its record along k, for 16 rows, is a head and the integers of one block of 32
// columns, or of eight; those are 64 bytes for each bit of an integer. See Matrix in package kernel.
type weights struct {
	name   string
	head   int // bytes before the integers
	blocks int // of 32 columns in a record
	bits   int // of an integer: 8; or 4, with more bits above them, which lie before the nibbles
	minima bool
}

// integerFormats in the order of package kernel.
func integerFormats() []weights {
	return []weights{
		{name: "Q8_0", head: 32, blocks: 1, bits: 8},
		{name: "Q4_0", head: 32, blocks: 1, bits: 4},
		{name: "Q4_1", head: 64, blocks: 1, bits: 4, minima: true},
		{name: "Q5_0", head: 32, blocks: 1, bits: 5},
		{name: "Q4_K", head: superHead, blocks: 8, bits: 4, minima: true},
		{name: "Q5_K", head: superHead, blocks: 8, bits: 5, minima: true},
		{name: "Q6_K", head: superHead, blocks: 8, bits: 6},
	}
}

const (
	superHead   = 320 // of a record of eight blocks
	superScales = 64  // where its byte scales start
	blockScales = 32  // byte scales of one block
)

// super says that a record has eight blocks, with byte scales that have a scale themselves.
func (w weights) super() bool { return w.blocks > 1 }

// integerBytes is the size of a block's integers.
func (w weights) integerBytes() int { return 64 * w.bits }

// stepBytes is the size of a record.
func (w weights) stepBytes() int { return w.head + w.blocks*w.integerBytes() }

// data is where a block's integers lie, from the weights' pointer: it is at the record, or at the integers themselves.
func (w weights) data() int {
	if w.super() {
		return 0
	}
	return w.head
}

// piece is where the vector with quad k lies. A quad is four columns, 4k to 4k+3, of a block: the low or the high nibbles
// of a vector, or a whole one.
func (w weights) piece(k int) int {
	if w.bits == 8 {
		return w.data() + 64*k
	}
	return w.data() + 64*(w.bits-4) + 64*(k%4)
}

// upper is where the bits above the nibbles of quad k lie, and which bit of each byte is the lowest of them.
func (w weights) upper(k int) (offset, bit int) {
	if w.bits == 5 {
		return w.data(), k
	}
	return w.data() + 64*(k/4), 2 * (k % 4)
}

// sections are the quads of a block, in parts that have one scale each, in the order that loads each vector once.
func (w weights) sections() [][]int {
	switch w.bits {
	case 8:
		return [][]int{{0, 1, 2, 3, 4, 5, 6, 7}}
	case 6:
		return [][]int{{0, 1, 2, 3}, {4, 5, 6, 7}}
	}
	return [][]int{{0, 4, 1, 5, 2, 6, 3, 7}}
}

// upperMask is where the upper bits belong in a byte, four times over.
func (w weights) upperMask() string {
	if w.bits == 5 {
		return "0x10101010"
	}
	return "0x30303030"
}

// prefetched is how many tokens a product may have that waits for its weights, and not for its arithmetic.
const prefetched = 2

// recordBytes is the size of a panel's record of one block and one token.
const recordBytes = 60

// record gives the offsets in a panel's record of one block and n tokens; see Activations in package kernel.
type record struct{ n, bias int }

func (r record) value(t, k int) int   { return 32*t + 4*k - r.bias }
func (r record) scale(t int) int      { return 32*r.n + 4*t - r.bias }
func (r record) scaledSum(t int) int  { return 36*r.n + 4*t - r.bias }
func (r record) offsetQ4_0(t int) int { return 40*r.n + 4*t - r.bias }
func (r record) offsetQ5_0(t int) int { return 44*r.n + 4*t - r.bias }
func (r record) offsetQ8_0(t int) int { return 48*r.n + 4*t - r.bias }
func (r record) offsetQ6_K(t, half int) int {
	return (52+4*half)*r.n + 4*t - r.bias
}

// products writes, for each format and number of tokens, the product of groups of 16 rows with a panel, and the
// function that chooses among them.
func products(f *file, i *isa) {
	var names []string
	each := func(name string, body func(n int)) {
		names = append(names, name)
		for n := 1; n <= i.width; n++ {
			f.function(productName(name, n, i), fmt.Sprintf("multiplies groups of 16 rows with a panel of %d tokens", n),
				join(bytes("w", "x"), pointer("out"), integer("stride", "steps", "groups", "ahead")), nil)
			f.load("w", "SI", "x", "DX", "out", "DI", "stride", "R8", "steps", "R9", "groups", "R10")
			if n <= prefetched {
				f.load("ahead", "R12")
			}
			body(n)
		}
	}
	if !i.wide {
		f.upperMasks()
	}
	for _, w := range integerFormats() {
		each(w.name, func(n int) {
			if i.wide {
				integerProduct512(f, w, n)
			} else {
				integerProduct256(f, i, w, n)
			}
		})
	}
	if i != avxvnni { // its products with float weights are AVX2's
		for _, w := range floatFormats() {
			each(w.name, func(n int) { floatProduct(f, i, w, n) })
		}
	}
	s := f.stubs
	s.printf("\n// product%s multiplies groups of 16 rows with a panel of n tokens: out[t*stride+16*group+row]; stride is in bytes,\n// and so is ahead, the distance at which weights are asked for.\n", i.suffix)
	s.printf("func product%s(f Format, n int, w, x *byte, out *float32, stride, steps, groups, ahead int) {\nswitch f {\n", i.suffix)
	for _, name := range names {
		s.printf("case %s:\nswitch n {\n", name)
		for n := 1; n <= i.width; n++ {
			s.printf("case %d:\n%s(w, x, out, stride, steps, groups, ahead)\n", n, productName(name, n, i))
		}
		s.printf("}\n")
	}
	s.printf("}\n}\n\nconst width%s = %d // tokens of a panel\n", i.suffix, i.width)
}

func productName(format string, n int, i *isa) string {
	return fmt.Sprintf("product%sx%d%s", format, n, i.suffix)
}

// prefetch asks for the cache line at offset from the weights, far ahead.
func (f *file) prefetch(n, offset int) {
	if n <= prefetched {
		f.op("PREFETCHT0 %d(SI)(R12*1)", offset)
	}
}

// prefetchHead asks for what lies before a block's quads: a record's head, where that is small, and the upper bits.
func (f *file) prefetchHead(n int, w weights) {
	if !w.super() {
		f.prefetch(n, 0)
	}
	for line := range (w.bits - 4) % 4 {
		f.prefetch(n, w.data()+64*line)
	}
}

// prefetchSuperHead asks for the head of a record of eight blocks.
func (f *file) prefetchSuperHead(n int) {
	for line := range superHead / 64 {
		f.prefetch(n, 64*line)
	}
}
