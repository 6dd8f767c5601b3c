package main

import "fmt"

// loop repeats body CX times; CX may be 0.
func (f *file) loop(name string, body func()) {
	f.op("TESTQ CX, CX")
	f.op("JLE %sEnd", name)
	f.label(name)
	body()
	f.op("DECQ CX")
	f.op("JNZ %s", name)
	f.label(name + "End")
}

// blocks16 loads the length n and makes CX the number of 16-lane blocks.
func (f *file) blocks16() {
	f.load("n", "CX")
	f.op("SHRQ $4, CX")
}

// reductions add to 16 lanes, which the caller keeps in memory: full blocks here, the rest in Go.
func reductions(f *file, i *isa) {
	const x, t1, t2, acc, extra = 0, 1, 2, 4, 6
	reduce := func(name, doc string, extras []param, body func(part int)) {
		f.function(name+i.suffix, doc, join(pointer("acc", "x"), integer("n"), extras), nil)
		f.load("acc", "DI", "x", "SI")
		f.blocks16()
		for _, p := range extras {
			f.op("VBROADCASTSS %s, %s", f.param(p.name), i.v(extra))
		}
		for p := range i.parts() {
			f.op("VMOVUPS %d(DI), %s", i.bytes()*p, i.v(acc+p))
		}
		f.loop("block", func() {
			for p := range i.parts() {
				f.op("VMOVUPS %d(SI), %s", i.bytes()*p, i.v(x))
				body(p)
			}
			f.op("ADDQ $64, SI")
		})
		for p := range i.parts() {
			f.op("VMOVUPS %s, %d(DI)", i.v(acc+p), i.bytes()*p)
		}
		f.end()
	}
	reduce("sum", "adds x to the lanes", nil, func(p int) {
		f.op("VADDPS %s, %s, %s", i.v(x), i.v(acc+p), i.v(acc+p))
	})
	reduce("sumSquares", "adds the squares of x to the lanes", nil, func(p int) {
		f.op("VFMADD231PS %s, %s, %s", i.v(x), i.v(x), i.v(acc+p))
	})
	reduce("sumDeviations", "adds the squares of x - mean to the lanes", single("mean"), func(p int) {
		f.op("VSUBPS %s, %s, %s", i.v(extra), i.v(x), i.v(x))
		f.op("VFMADD231PS %s, %s, %s", i.v(x), i.v(x), i.v(acc+p))
	})
	reduce("max", "raises the lanes to x where it is larger", nil, func(p int) {
		f.op("VMAXPS %s, %s, %s", i.v(acc+p), i.v(x), i.v(acc+p)) // a NaN in x leaves the lane
	})
	// find: the index of the first block of 16 that holds value, or n.
	f.function("find"+i.suffix, "gives the start of the first 16 values of x among which is value, or n",
		join(pointer("x"), integer("n"), single("value")), integer("at"))
	f.load("x", "SI", "n", "CX")
	f.op("XORQ AX, AX")
	f.op("VBROADCASTSS %s, %s", f.param("value"), i.v(1))
	f.label("look")
	f.op("CMPQ AX, CX")
	f.op("JGE found")
	if i.wide {
		f.op("VCMPPS $0, (SI)(AX*4), Z1, K1")
		f.op("KTESTW K1, K1")
	} else {
		f.op("VCMPPS $0, (SI)(AX*4), Y1, Y2")
		f.op("VCMPPS $0, 32(SI)(AX*4), Y1, Y3")
		f.op("VORPS Y2, Y3, Y2")
		f.op("VPTEST Y2, Y2")
	}
	f.op("JNZ found")
	f.op("ADDQ $16, AX")
	f.op("JMP look")
	f.label("found")
	f.op("MOVQ AX, %s", f.param("at"))
	f.end()
	expAdd(f, i)
	largestBits(f, i)
	above(f, i)
}

func expAdd(f *file, i *isa) {
	const x, t1, t2, acc, shift, scale = 0, 1, 2, 4, 6, 7
	f.function("expAdd"+i.suffix, "computes dst = exp((x - shift) * scale), where that is no positive argument, and adds it to the lanes",
		join(pointer("acc", "dst", "x"), integer("n"), single("shift", "scale")), nil)
	f.load("acc", "DX", "dst", "DI", "x", "SI")
	f.blocks16()
	f.op("VBROADCASTSS %s, %s", f.param("shift"), i.v(shift))
	f.op("VBROADCASTSS %s, %s", f.param("scale"), i.v(scale))
	for p := range i.parts() {
		f.op("VMOVUPS %d(DX), %s", i.bytes()*p, i.v(acc+p))
	}
	f.loop("block", func() {
		for p := range i.parts() {
			f.op("VMOVUPS %d(SI), %s", i.bytes()*p, i.v(x))
			f.op("VSUBPS %s, %s, %s", i.v(shift), i.v(x), i.v(x))
			f.op("VMULPS %s, %s, %s", i.v(scale), i.v(x), i.v(x))
			i.exp(f, x, t1, t2, true)
			f.op("VADDPS %s, %s, %s", i.v(x), i.v(acc+p), i.v(acc+p))
			f.op("VMOVUPS %s, %d(DI)", i.v(x), i.bytes()*p)
		}
		f.op("ADDQ $64, SI")
		f.op("ADDQ $64, DI")
	})
	for p := range i.parts() {
		f.op("VMOVUPS %s, %d(DX)", i.v(acc+p), i.bytes()*p)
	}
	f.end()
}

// largestBits: as integers, magnitudes are in order, and infinities and NaN come last.
func largestBits(f *file, i *isa) {
	const x, acc, magnitude = 0, 2, 4
	f.function("largestBits"+i.suffix, "gives the largest magnitude of x, as bits", join(pointer("x"), integer("n")), integer("bits"))
	f.load("x", "SI")
	f.blocks16()
	i.loadConstant(f, "magnitude", magnitude)
	for p := range i.parts() {
		f.op("VXORPS %s, %s, %s", i.v(acc+p), i.v(acc+p), i.v(acc+p))
	}
	f.loop("block", func() {
		for p := range i.parts() {
			f.op("VANDPS %d(SI), %s, %s", i.bytes()*p, i.v(magnitude), i.v(x))
			f.op("VPMAXUD %s, %s, %s", i.v(x), i.v(acc+p), i.v(acc+p))
		}
		f.op("ADDQ $64, SI")
	})
	i.treeReduce(f, "VPMAXUD", acc, x)
	f.op("VMOVD X%d, AX", acc)
	f.op("MOVQ AX, %s", f.param("bits"))
	f.end()
}

// above packs the indices of what is at least a bound. AVX-512 writes 16 of them at a time, and then goes on behind the last
// that counts: there is always room, as no more have been written than were looked at.
func above(f *file, i *isa) {
	const index, least, step, x = 2, 3, 4, 5
	f.function("above"+i.suffix, "writes the indices of the values that are at least least, and says how many",
		join([]param{{"indices", "*int32"}}, pointer("x"), integer("n"), single("least")), integer("count"))
	f.load("indices", "DI", "x", "SI")
	f.blocks16()
	f.op("MOVQ DI, R8")
	f.op("VBROADCASTSS %s, %s", f.param("least"), i.v(least))
	if i.wide {
		f.op("MOVQ $0x0706050403020100, AX")
		f.op("VMOVQ AX, X0")
		f.op("MOVQ $0x0f0e0d0c0b0a0908, AX")
		f.op("VPINSRQ $1, AX, X0, X0")
		f.op("VPMOVZXBD X0, Z%d", index)
		f.op("MOVL $16, AX")
		f.op("VPBROADCASTD AX, Z%d", step)
	} else {
		f.op("XORL R9, R9") // the block's first index
	}
	f.loop("block", func() {
		if i.wide {
			f.op("VMOVUPS (SI), Z%d", x)
			f.op("VCMPPS $0x1d, Z%d, Z%d, K1", least, x) // GE, quiet
			f.op("KMOVW K1, AX")
			f.op("TESTL AX, AX")
			f.op("JZ none")
			f.op("VPCOMPRESSD Z%d, K1, Z%d", index, x)
			f.op("VMOVDQU32 Z%d, (DI)", x)
			f.op("POPCNTL AX, AX")
			f.op("LEAQ (DI)(AX*4), DI")
			f.label("none")
			f.op("VPADDD Z%d, Z%d, Z%d", step, index, index)
		} else {
			for p := range 2 {
				f.op("VMOVUPS %d(SI), Y%d", 32*p, x+p)
				f.op("VCMPPS $0x1d, Y%d, Y%d, Y%d", least, x+p, x+p)
				f.op("VMOVMSKPS Y%d, %s", x+p, []string{"AX", "BX"}[p])
			}
			f.op("SHLL $8, BX")
			f.op("ORL BX, AX")
			f.op("JZ none")
			f.label("bit")
			f.op("BSFL AX, BX")
			f.op("ADDL R9, BX")
			f.op("MOVL BX, (DI)")
			f.op("ADDQ $4, DI")
			f.op("LEAL -1(AX), BX") // the lowest bit goes
			f.op("ANDL BX, AX")
			f.op("JNZ bit")
			f.label("none")
			f.op("ADDL $16, R9")
		}
		f.op("ADDQ $64, SI")
	})
	f.op("SUBQ R8, DI")
	f.op("SHRQ $2, DI")
	f.op("MOVQ DI, %s", f.param("count"))
	f.end()
}

// elementLoop walks n values, a multiple of 16, one register at a time; the pointers in registers move along.
func (f *file) elementLoop(i *isa, pointers []string, body func()) {
	f.load("n", "CX")
	if i.wide {
		f.op("SHRQ $4, CX")
	} else {
		f.op("SHRQ $3, CX")
	}
	f.loop("block", func() {
		body()
		for _, p := range pointers {
			f.op("ADDQ $%d, %s", i.bytes(), p)
		}
	})
	f.end()
}

func norms(f *file, i *isa) {
	f.function("scaleMul"+i.suffix, "computes dst = x * scale * w", join(pointer("dst", "x", "w"), integer("n"), single("scale")), nil)
	f.load("dst", "DI", "x", "SI", "w", "DX")
	f.op("VBROADCASTSS %s, %s", f.param("scale"), i.v(1))
	f.elementLoop(i, []string{"SI", "DI", "DX"}, func() {
		f.op("VMULPS (SI), %s, %s", i.v(1), i.v(0))
		f.op("VMULPS (DX), %s, %s", i.v(0), i.v(0))
		f.op("VMOVUPS %s, (DI)", i.v(0))
	})

	f.function("normalize"+i.suffix, "computes dst = (x - mean) * scale * w + b",
		join(pointer("dst", "x", "w", "b"), integer("n"), single("mean", "scale")), nil)
	f.load("dst", "DI", "x", "SI", "w", "DX", "b", "BX")
	f.op("VBROADCASTSS %s, %s", f.param("mean"), i.v(1))
	f.op("VBROADCASTSS %s, %s", f.param("scale"), i.v(2))
	f.elementLoop(i, []string{"SI", "DI", "DX", "BX"}, func() {
		f.op("VMOVUPS (SI), %s", i.v(0))
		f.op("VSUBPS %s, %s, %s", i.v(1), i.v(0), i.v(0))
		f.op("VMULPS %s, %s, %s", i.v(2), i.v(0), i.v(0))
		f.op("VMOVUPS (DX), %s", i.v(3))
		f.op("VFMADD213PS (BX), %s, %s", i.v(3), i.v(0))
		f.op("VMOVUPS %s, (DI)", i.v(0))
	})
}

func elementwise(f *file, i *isa) {
	binary := func(name, doc string, extras []param, body func()) {
		f.function(name+i.suffix, doc, join(pointer("dst", "x"), integer("n"), extras), nil)
		f.load("dst", "DI", "x", "SI")
		for _, p := range extras {
			f.op("VBROADCASTSS %s, %s", f.param(p.name), i.v(12))
		}
		f.elementLoop(i, []string{"SI", "DI"}, body)
	}
	binary("add", "computes dst += x", nil, func() {
		f.op("VMOVUPS (DI), %s", i.v(0))
		f.op("VADDPS (SI), %s, %s", i.v(0), i.v(0))
		f.op("VMOVUPS %s, (DI)", i.v(0))
	})
	binary("mul", "computes dst *= x", nil, func() {
		f.op("VMOVUPS (DI), %s", i.v(0))
		f.op("VMULPS (SI), %s, %s", i.v(0), i.v(0))
		f.op("VMOVUPS %s, (DI)", i.v(0))
	})
	binary("addScaled", "computes dst += factor * x", single("factor"), func() {
		f.op("VMOVUPS (DI), %s", i.v(0))
		f.op("VFMADD231PS (SI), %s, %s", i.v(12), i.v(0))
		f.op("VMOVUPS %s, (DI)", i.v(0))
	})
	binary("gelu", "computes dst = GELU(x), the tanh form", nil, func() {
		f.op("VMOVUPS (SI), %s", i.v(6))
		f.op("VMULPS %s, %s, %s", i.v(6), i.v(6), i.v(0))
		i.withConstant(f, "VMULPS", "geluCubic", i.v(0)+", "+i.v(0))
		f.op("VFMADD213PS %s, %s, %s", i.v(6), i.v(6), i.v(0))
		i.withConstant(f, "VMULPS", "root2OverPi", i.v(0)+", "+i.v(0))
		i.tanh(f, 0, 1, 2, 3, 4)
		i.withConstant(f, "VMULPS", "half", i.v(6)+", "+i.v(6))
		f.op("VFMADD213PS %s, %s, %s", i.v(6), i.v(6), i.v(0))
		f.op("VMOVUPS %s, (DI)", i.v(0))
	})
	binary("geluErf", "computes dst = GELU(x), the erf form", nil, func() {
		f.op("VMOVUPS (SI), %s", i.v(6))
		i.withConstant(f, "VMULPS", "rootHalf", i.v(6)+", "+i.v(0))
		i.erf(f, 0, 1, 2, 3, 4)
		i.withConstant(f, "VMULPS", "half", i.v(6)+", "+i.v(6))
		f.op("VFMADD213PS %s, %s, %s", i.v(6), i.v(6), i.v(0))
		f.op("VMOVUPS %s, (DI)", i.v(0))
	})

	f.function("scale"+i.suffix, "computes x *= factor", join(pointer("x"), integer("n"), single("factor")), nil)
	f.load("x", "DI")
	f.op("VBROADCASTSS %s, %s", f.param("factor"), i.v(12))
	f.elementLoop(i, []string{"DI"}, func() {
		f.op("VMULPS (DI), %s, %s", i.v(12), i.v(0))
		f.op("VMOVUPS %s, (DI)", i.v(0))
	})

	f.function("softCap"+i.suffix, "computes x = limit * tanh(x / limit)", join(pointer("x"), integer("n"), single("limit")), nil)
	f.load("x", "DI")
	f.op("VBROADCASTSS %s, %s", f.param("limit"), i.v(12))
	f.elementLoop(i, []string{"DI"}, func() {
		f.op("VMOVUPS (DI), %s", i.v(0))
		f.op("VDIVPS %s, %s, %s", i.v(12), i.v(0), i.v(0))
		i.tanh(f, 0, 1, 2, 3, 4)
		f.op("VMULPS %s, %s, %s", i.v(12), i.v(0), i.v(0))
		f.op("VMOVUPS %s, (DI)", i.v(0))
	})

	f.function("swiGLU"+i.suffix, "computes dst = gate * sigmoid(gate) * up", join(pointer("dst", "gate", "up"), integer("n")), nil)
	f.load("dst", "DI", "gate", "SI", "up", "DX")
	f.elementLoop(i, []string{"SI", "DX", "DI"}, func() {
		f.op("VMOVUPS (SI), %s", i.v(3))
		i.withConstant(f, "VXORPS", "sign", i.v(3)+", "+i.v(0))
		i.exp(f, 0, 1, 2, false)
		i.withConstant(f, "VADDPS", "one", i.v(0)+", "+i.v(0))
		f.op("VDIVPS %s, %s, %s", i.v(0), i.v(3), i.v(3))
		f.op("VMULPS (DX), %s, %s", i.v(3), i.v(3))
		f.op("VMOVUPS %s, (DI)", i.v(3))
	})
}

func rotations(f *file, i *isa) {
	f.function("rotateHalves"+i.suffix, "rotates the pairs (a, b) by the angles", join(pointer("a", "b", "cos", "sin"), integer("n")), nil)
	f.load("a", "DI", "b", "SI", "cos", "DX", "sin", "BX")
	f.elementLoop(i, []string{"DI", "SI", "DX", "BX"}, func() {
		f.op("VMOVUPS (DI), %s", i.v(0))
		f.op("VMOVUPS (SI), %s", i.v(1))
		f.op("VMOVUPS (DX), %s", i.v(2))
		f.op("VMOVUPS (BX), %s", i.v(3))
		f.op("VMULPS %s, %s, %s", i.v(2), i.v(0), i.v(4))
		f.op("VMULPS %s, %s, %s", i.v(3), i.v(1), i.v(5))
		f.op("VSUBPS %s, %s, %s", i.v(5), i.v(4), i.v(4)) // a cos - b sin
		f.op("VMULPS %s, %s, %s", i.v(2), i.v(1), i.v(1))
		f.op("VMULPS %s, %s, %s", i.v(3), i.v(0), i.v(0))
		f.op("VADDPS %s, %s, %s", i.v(0), i.v(1), i.v(1)) // b cos + a sin
		f.op("VMOVUPS %s, (DI)", i.v(4))
		f.op("VMOVUPS %s, (SI)", i.v(1))
	})

	// Eight angles serve sixteen values: each is doubled to both places of its pair.
	f.function("rotatePairs"+i.suffix, "rotates the n/2 consecutive pairs of x by the angles", join(pointer("x", "cos", "sin"), integer("n")), nil)
	f.load("x", "DI", "cos", "DX", "sin", "BX")
	f.blocks16()
	f.loop("block", func() {
		for half := range 2 {
			f.op("VMOVUPS %d(DI), Y0", 32*half)
			for r, p := range []string{"DX", "BX"} { // c0 c1 c2 c3 to c0 c0 c1 c1 c2 c2 c3 c3
				f.op("VMOVUPS %d(%s), X%d", 16*half, p, 1+r)
				f.op("VPERMILPS $0x50, X%d, X5", 1+r)
				f.op("VPERMILPS $0xfa, X%d, X6", 1+r)
				f.op("VINSERTF128 $1, X6, Y5, Y%d", 1+r)
			}
			f.op("VPERMILPS $0xb1, Y0, Y3") // b a of each pair a b
			f.op("VMULPS Y1, Y0, Y0")
			f.op("VMULPS Y2, Y3, Y3")
			f.op("VADDSUBPS Y3, Y0, Y0") // a cos - b sin, b cos + a sin
			f.op("VMOVUPS Y0, %d(DI)", 32*half)
		}
		f.op("ADDQ $64, DI")
		f.op("ADDQ $32, DX")
		f.op("ADDQ $32, BX")
	})
	f.end()
}

func conversions(f *file, i *isa) {
	f.function("toHalves"+i.suffix, "rounds x to binary16", join(words("dst"), pointer("x"), integer("n")), nil)
	f.load("dst", "DI", "x", "SI")
	f.blocks16()
	f.loop("block", func() {
		for p := range i.parts() {
			f.op("VMOVUPS %d(SI), %s", i.bytes()*p, i.v(0))
			f.op("VCVTPS2PH $0, %s, %d(DI)", i.v(0), i.bytes()/2*p) // to nearest even, whatever MXCSR says
		}
		f.op("ADDQ $64, SI")
		f.op("ADDQ $32, DI")
	})
	f.end()

	f.function("fromHalves"+i.suffix, "converts binary16", join(pointer("dst"), words("x"), integer("n")), nil)
	f.load("dst", "DI", "x", "SI")
	f.blocks16()
	f.loop("block", func() {
		for p := range i.parts() {
			f.op("VCVTPH2PS %d(SI), %s", i.bytes()/2*p, i.v(0))
			f.op("VMOVUPS %s, %d(DI)", i.v(0), i.bytes()*p)
		}
		f.op("ADDQ $32, SI")
		f.op("ADDQ $64, DI")
	})
	f.end()
}

// quantize writes blocks of 32 as int8 with their scales, as token t of a panel of n.
func quantize(f *file, i *isa) {
	const tiny, infinity = (127 - 100) << 23, 0x7f800000
	f.function("quantize"+i.suffix, "quantises blocks of 32 values of x as token t of a panel of n",
		join(bytes("dst"), pointer("x"), integer("blocks", "n", "t")), nil)
	f.load("dst", "DI", "x", "SI", "blocks", "CX", "n", "R8", "t", "R9")
	f.op("MOVQ R9, R10")
	f.op("SHLQ $5, R10")
	f.op("ADDQ DI, R10") // R10: the token's values, 32 bytes a token
	f.op("MOVQ R8, R11")
	f.op("SHLQ $5, R11")
	f.op("LEAQ (DI)(R9*4), R12")
	f.op("ADDQ R11, R12")                   // R12: its scale, behind all values
	f.op("LEAQ (R8*4), R13")                // R13: from one field to the next
	f.op("IMUL3Q $%d, R8, R8", recordBytes) // R8: from one record to the next
	f.op("MOVL $0x42fe0000, AX")            // 127
	f.op("VMOVD AX, X15")
	i.loadConstant(f, "magnitude", 14)
	registers := 32 / i.lanes()
	f.loop("block", func() {
		for r := range registers {
			f.op("VMOVUPS %d(SI), %s", i.bytes()*r, i.v(r))
			f.op("VANDPS %s, %s, %s", i.v(14), i.v(r), i.v(4+r))
		}
		if !i.wide {
			f.op("VPMAXUD Y6, Y4, Y4")
			f.op("VPMAXUD Y7, Y5, Y5")
			i.treeReduce(f, "VPMAXUD", 4, 8)
		} else {
			f.op("VPMAXUD Z5, Z4, Z4")
			i.treeReduce(f, "VPMAXUD", 4, 8)
		}
		f.op("VDIVSS X15, X4, X9")  // d = largest / 127
		f.op("VDIVSS X4, X15, X10") // 127 / largest
		f.op("VBROADCASTSS X10, %s", i.v(10))
		// all ones where 2^-100 <= largest < infinity
		f.op("VMOVD X4, AX")
		f.op("SUBL $0x%x, AX", tiny)
		f.op("CMPL AX, $0x%x", infinity-tiny)
		f.op("SBBL AX, AX")
		f.op("VMOVD AX, X11")
		f.op("VPBROADCASTD X11, %s", i.v(11))
		for r := range registers {
			f.op("VMULPS %s, %s, %s", i.v(10), i.v(r), i.v(r))
			f.op("VCVTPS2DQ %s, %s", i.v(r), i.v(r))
			f.op("VANDPS %s, %s, %s", i.v(11), i.v(r), i.v(r))
		}
		if i.wide {
			f.op("VPMOVDB Z0, (R10)")
			f.op("VPMOVDB Z1, 16(R10)")
			f.op("VEXTRACTI64X4 $1, Z0, Y4")
			f.op("VEXTRACTI64X4 $1, Z1, Y5")
			f.op("VPADDD Y4, Y0, Y4")
			f.op("VPADDD Y5, Y1, Y5")
		} else {
			f.op("VPADDD Y1, Y0, Y4")
			f.op("VPADDD Y3, Y2, Y5")
			f.op("VPACKSSDW Y1, Y0, Y0") // 0-3 8-11 | 4-7 12-15
			f.op("VPACKSSDW Y3, Y2, Y2")
			f.op("VPACKSSWB Y2, Y0, Y0") // 0-3 8-11 16-19 24-27 | 4-7 12-15 20-23 28-31
			f.op("VEXTRACTI128 $1, Y0, X1")
			f.op("VPUNPCKLDQ X1, X0, X2")
			f.op("VPUNPCKHDQ X1, X0, X3")
			f.op("VMOVDQU X2, (R10)")
			f.op("VMOVDQU X3, 16(R10)")
		}
		// The sums of the first 16 values, from Y4, and of the last, from Y5.
		f.op("VPHADDD Y5, Y4, Y4") // first first last last | the same
		f.op("VEXTRACTI128 $1, Y4, X5")
		f.op("VPADDD X5, X4, X4")
		f.op("VPSHUFD $0xb1, X4, X5")
		f.op("VPADDD X5, X4, X4")
		f.op("VPSHUFD $0x4e, X4, X5")
		f.op("VPADDD X5, X4, X5") // X5: of all
		f.op("VMOVSS X9, (R12)")
		f.op("VCVTDQ2PS X5, X6")
		f.op("VMULSS X6, X9, X6")
		f.op("VMOVSS X6, (R12)(R13*1)")
		f.op("VMOVD X5, AX")
		f.op("NEGL AX")
		f.op("LEAQ (R12)(R13*2), BX")
		for _, shift := range []int{3, 1, 3} { // times 8, 16, 128
			f.op("SHLL $%d, AX", shift)
			f.op("MOVL AX, (BX)")
			f.op("ADDQ R13, BX")
		}
		for half := range 2 {
			f.op("VPEXTRD $%d, X4, AX", 2*half)
			f.op("NEGL AX")
			f.op("SHLL $5, AX")
			f.op("MOVL AX, (BX)")
			f.op("ADDQ R13, BX")
		}
		f.op("ADDQ $128, SI")
		f.op("ADDQ R8, R10")
		f.op("ADDQ R8, R12")
	})
	f.end()
}

func (i *isa) String() string { return fmt.Sprint(i.suffix) }
