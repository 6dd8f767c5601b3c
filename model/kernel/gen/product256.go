package main

import "fmt"

// tile256 is a product of n tokens while it is written, with 8 rows, or with both halves of 16. Its registers: sums in
// Y0.., integer sums after them, and those below.
type tile256 struct {
	*file
	w         weights
	n, halves int
	x         record
	vnni      bool

	low, high, value, product  int
	mask, ones, scale, minimum int
}

func (f tile256) sum(h, t int) string { return y(h*f.n + t) }
func (f tile256) dot(h, t int) int    { return (f.halves+h)*f.n + t }

func y(r int) string { return fmt.Sprintf("Y%d", r) }

// upperMasks writes the constants that tile256 has no registers for.
func (f *file) upperMasks() {
	f.text.WriteString("\n")
	for bits, mask := range []string{weights{bits: 5}.upperMask(), weights{bits: 6}.upperMask()} {
		for j := range 8 {
			fmt.Fprintf(&f.text, "DATA upperMasks<>+%d(SB)/4, $%s\n", 32*bits+4*j, mask)
		}
	}
	f.text.WriteString("GLOBL upperMasks<>(SB), RODATA|NOPTR, $64\n")
}

// integerProduct256: eight rows are a register, so a group has two halves. Up to two tokens fit with both halves at
// once; more go over the group twice, the second time from the cache.
func integerProduct256(file *file, i *isa, w weights, n int) {
	halves := 1
	if n <= 2 {
		halves = 2
	}
	free := 2 * halves * n
	f := tile256{
		file: file, w: w, n: n, halves: halves, x: record{n: n}, vnni: i.vnni,
		low: free, high: free + 1, value: free + 2, product: free + 3,
		mask: free + 4, ones: free + 5, scale: free + 6, minimum: free + 7,
	}
	broadcast := func(bits string, r int) {
		f.op("MOVL $%s, AX", bits)
		f.op("VMOVD AX, X%d", r)
		f.op("VPBROADCASTD X%d, Y%d", r, r)
	}
	if w.bits == 8 {
		broadcast("0x80808080", f.mask)
	} else {
		broadcast("0x0f0f0f0f", f.mask)
	}
	broadcast("0x00010001", f.ones)

	f.label("group")
	f.op("MOVQ SI, AX")
	f.op("MOVQ SI, R11") // R11: the scales of this half
	if w.super() {
		f.op("LEAQ %d(SI), R13", superScales) // R13: its byte scales
		f.op("ADDQ $%d, SI", superHead)
	}
	f.op("MOVQ $%d, R12", 2/halves)
	f.label("half")
	f.op("MOVQ DX, BX")
	if w.super() {
		f.op("LEAQ (R9*8), CX")
	} else {
		f.op("MOVQ R9, CX")
	}
	for h := range halves {
		for t := range n {
			f.op("VXORPS %s, %s, %s", f.sum(h, t), f.sum(h, t), f.sum(h, t))
		}
	}
	f.label("block")
	f.prefetchHead(n, w)
	for s, quads := range w.sections() {
		for h := range halves {
			for t := range n {
				f.op("VPXOR %s, %s, %s", y(f.dot(h, t)), y(f.dot(h, t)), y(f.dot(h, t)))
			}
		}
		if w.bits == 8 {
			f.bytes(quads)
		} else {
			f.nibbles(s, quads)
		}
		f.finish(s)
	}
	f.op("ADDQ $%d, BX", recordBytes*n)
	if w.super() {
		f.op("ADDQ $%d, SI", w.integerBytes())
		f.op("ADDQ $%d, R13", blockScales)
		f.op("DECQ CX")
		f.op("JZ sums")
		f.op("TESTQ $7, CX")
		f.op("JNZ block")
		f.prefetchSuperHead(n)
		f.op("ADDQ $%d, SI", superHead)
		f.op("ADDQ $%d, R13", w.stepBytes()-8*blockScales)
		f.op("ADDQ $%d, R11", w.stepBytes())
		f.op("JMP block")
		f.label("sums")
	} else {
		f.op("ADDQ $%d, SI", w.stepBytes())
		f.op("ADDQ $%d, R11", w.stepBytes())
		f.op("DECQ CX")
		f.op("JNZ block")
	}
	f.op("MOVQ DI, R13")
	for t := range n {
		for h := range halves {
			f.op("VMOVUPS %s, %d(R13)", f.sum(h, t), 32*h)
		}
		if t < n-1 {
			f.op("ADDQ R8, R13")
		}
	}
	f.op("ADDQ $%d, DI", 32*halves)
	if halves == 1 {
		f.op("DECQ R12")
		f.op("JZ next")
		f.op("LEAQ 16(AX), R11")
		if w.super() {
			f.op("LEAQ %d(AX), R13", superScales+8)
			f.op("LEAQ %d(AX), SI", superHead+32)
		} else {
			f.op("LEAQ 32(AX), SI")
		}
		f.op("JMP half")
		f.label("next")
		f.op("SUBQ $32, SI") // the second half ran 32 bytes ahead
	}
	f.op("DECQ R10")
	f.op("JNZ group")
	f.end()
}

// VPMADDUBSW saturates at 16 bits: a pair of products must stay within. Nibbles do, and eight pairs of them too; integers
// of 6 bits do, and two pairs. With int8 weights the magnitude, 128 at most, is the unsigned side, and the activations,
// 127 at most, take the sign.

// bytes adds the products of int8 weights to the integer sums.
func (f tile256) bytes(quads []int) {
	for _, k := range quads {
		f.prefetch(f.n, f.w.piece(k))
		for h := range f.halves {
			f.op("VMOVDQU %d(SI), %s", f.w.piece(k)+32*h, y(f.high))
			if f.vnni {
				for t := range f.n {
					f.op("VPBROADCASTD %d(BX), %s", f.x.value(t, k), y(f.value))
					f.dotAccumulate(f.value, f.high, f.dot(h, t))
				}
				continue
			}
			f.op("VPXOR %s, %s, %s", y(f.mask), y(f.high), y(f.low)) // signed
			f.op("VPABSB %s, %s", y(f.low), y(f.high))
			for t := range f.n {
				f.op("VPBROADCASTD %d(BX), %s", f.x.value(t, k), y(f.value))
				f.op("VPSIGNB %s, %s, %s", y(f.low), y(f.value), y(f.value))
				f.op("VPMADDUBSW %s, %s, %s", y(f.value), y(f.high), y(f.product))
				f.widen(f.dot(h, t))
			}
		}
	}
}

// nibbles adds the products of a section's unsigned integers to the integer sums, two quads at a time.
func (f tile256) nibbles(section int, quads []int) {
	for ; len(quads) > 0; quads = quads[2:] {
		pair := quads[:2]
		for h := range f.halves {
			vector := -1
			for i, k := range pair {
				if at := f.w.piece(k); at != vector {
					vector = at
					if section == 0 && h == 0 {
						f.prefetch(f.n, at)
					}
					f.op("VMOVDQU %d(SI), %s", at+32*h, y(f.high))
				}
				f.unpack(h, k, []int{f.low, f.high}[i])
			}
			for t := range f.n {
				f.multiply(pair, h, t)
			}
		}
	}
}

// unpack makes the integers of quad k from the nibbles in high.
func (f tile256) unpack(h, k, to int) {
	if k < 4 {
		f.op("VPAND %s, %s, %s", y(f.mask), y(f.high), y(to))
	} else {
		f.op("VPSRLD $4, %s, %s", y(f.high), y(to))
		f.op("VPAND %s, %s, %s", y(f.mask), y(to), y(to))
	}
	if f.w.bits == 4 {
		return
	}
	at, bit := f.w.upper(k)
	upper := y(f.scale) // which is not in use yet
	f.op("VMOVDQU %d(SI), %s", at+32*h, upper)
	if bit < 4 {
		f.op("VPSLLD $%d, %s, %s", 4-bit, upper, upper)
	} else if bit > 4 {
		f.op("VPSRLD $%d, %s, %s", bit-4, upper, upper)
	}
	f.op("VPAND upperMasks<>+%d(SB), %s, %s", 32*(f.w.bits-5), upper, upper)
	f.op("VPOR %s, %s, %s", upper, y(to), y(to))
}

// multiply adds the products of a pair of quads, in low and high, with token t.
func (f tile256) multiply(pair []int, h, t int) {
	dot := f.dot(h, t)
	f.op("VPBROADCASTD %d(BX), %s", f.x.value(t, pair[0]), y(f.value))
	switch {
	case f.vnni:
		f.dotAccumulate(f.value, f.low, dot)
	case f.w.bits == 4:
		f.op("VPMADDUBSW %s, %s, %s", y(f.value), y(f.low), y(f.product))
		f.op("VPADDW %s, %s, %s", y(f.product), y(dot), y(dot))
	default:
		f.op("VPMADDUBSW %s, %s, %s", y(f.value), y(f.low), y(f.product))
	}
	f.op("VPBROADCASTD %d(BX), %s", f.x.value(t, pair[1]), y(f.value))
	switch {
	case f.vnni:
		f.dotAccumulate(f.value, f.high, dot)
	case f.w.bits == 4:
		f.op("VPMADDUBSW %s, %s, %s", y(f.value), y(f.high), y(f.product))
		f.op("VPADDW %s, %s, %s", y(f.product), y(dot), y(dot))
	default:
		f.op("VPMADDUBSW %s, %s, %s", y(f.value), y(f.high), y(f.value))
		f.op("VPADDW %s, %s, %s", y(f.value), y(f.product), y(f.product))
		f.widen(dot)
	}
}

// widen adds the 16-bit sums in product to an integer sum.
func (f tile256) widen(dot int) {
	f.op("VPMADDWD %s, %s, %s", y(f.ones), y(f.product), y(f.product))
	f.op("VPADDD %s, %s, %s", y(f.product), y(dot), y(dot))
}

// finish scales the integer sums of a section and adds them to the sums.
func (f tile256) finish(section int) {
	w := f.w
	for h := range f.halves {
		f.loadScales(h, section)
		for t := range f.n {
			d := y(f.dot(h, t))
			if w.bits == 4 && !f.vnni {
				f.op("VPMADDWD %s, %s, %s", y(f.ones), d, d)
			}
			offset := func(at int) {
				f.op("VPBROADCASTD %d(BX), %s", at, y(f.value))
				f.op("VPADDD %s, %s, %s", y(f.value), d, d)
			}
			switch {
			case w.name == "Q4_0":
				offset(f.x.offsetQ4_0(t))
			case w.name == "Q5_0":
				offset(f.x.offsetQ5_0(t))
			case w.name == "Q6_K":
				offset(f.x.offsetQ6_K(t, section))
			case w.name == "Q8_0" && f.vnni:
				offset(f.x.offsetQ8_0(t))
			}
			f.op("VCVTDQ2PS %s, %s", d, d)
			f.op("VBROADCASTSS %d(BX), %s", f.x.scale(t), y(f.value))
			f.op("VMULPS %s, %s, %s", y(f.value), y(f.scale), y(f.value))
			f.op("VFMADD231PS %s, %s, %s", y(f.value), d, f.sum(h, t))
			if w.minima {
				f.op("VBROADCASTSS %d(BX), %s", f.x.scaledSum(t), y(f.value))
				f.op("VFMADD231PS %s, %s, %s", y(f.value), y(f.minimum), f.sum(h, t))
			}
		}
	}
}

// loadScales loads the scales, and minima, of a section's rows in half h.
func (f tile256) loadScales(h, section int) {
	if !f.w.super() {
		f.op("VCVTPH2PS %d(R11), %s", 16*h, y(f.scale))
		if f.w.minima {
			f.op("VCVTPH2PS %d(R11), %s", 32+16*h, y(f.minimum))
		}
		return
	}
	load := func(extend string, bytes, halves, r int) {
		f.op("%s %d(R13), %s", extend, bytes+8*h, y(r))
		f.op("VCVTDQ2PS %s, %s", y(r), y(r))
		f.op("VCVTPH2PS %d(R11), %s", halves+16*h, y(f.low))
		f.op("VMULPS %s, %s, %s", y(f.low), y(r), y(r))
	}
	if f.w.minima {
		load("VPMOVZXBD", 0, 0, f.scale)
		load("VPMOVZXBD", 16, 32, f.minimum)
	} else {
		load("VPMOVSXBD", 16*section, 0, f.scale)
	}
}

// dotAccumulate is VPDPBUSD in its VEX form, which Go's assembler does not write: dst += unsigned * signed, by fours.
// VEX.256.66.0F38.W0 50 /r, with dst in reg, unsigned in vvvv, signed in rm.
func (f *file) dotAccumulate(signed, unsigned, dst int) {
	b1 := 0xe2 // inverted R, X, B; map 0F38
	if dst >= 8 {
		b1 &^= 0x80
	}
	if signed >= 8 {
		b1 &^= 0x20
	}
	b2 := (^unsigned&15)<<3 | 0x05
	modrm := 0xc0 | dst&7<<3 | signed&7
	f.op("BYTE $0xc4; BYTE $0x%02x; BYTE $0x%02x; BYTE $0x50; BYTE $0x%02x // VPDPBUSD Y%d, Y%d, Y%d", b1, b2, modrm, signed, unsigned, dst)
}
