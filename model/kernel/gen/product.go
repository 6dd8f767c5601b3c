package main

import "fmt"

// weights is a packed format; stepBytes is its record along k, for 16 rows.
type weights struct {
	name      string
	stepBytes int
	data      int // offset of the integers in a record
}

var (
	q8_0 = weights{"Q8_0", 544, 32}
	q4_0 = weights{"Q4_0", 288, 32}
	q4_1 = weights{"Q4_1", 320, 64}
	f32  = weights{"F32", 64, 0}
	f16  = weights{"F16", 32, 0}
	bf16 = weights{"BF16", 32, 0}

	integerFormats = []weights{q8_0, q4_0, q4_1}
	floatFormats   = []weights{f32, f16, bf16}
)

// prefetchAhead, in bytes, is where a matrix-vector product asks for weights: the memory's latency times its bandwidth.
const prefetchAhead = 8 << 10

// record gives the offsets in a panel's record of one block and n tokens; see Activations in package kernel.
type record struct{ n, bias int }

func (r record) value(t, j int) int   { return 32*t + 4*j - r.bias }
func (r record) scale(t int) int      { return 32*r.n + 4*t - r.bias }
func (r record) scaledSum(t int) int  { return 36*r.n + 4*t - r.bias }
func (r record) offsetQ4_0(t int) int { return 40*r.n + 4*t - r.bias }
func (r record) offsetQ8_0(t int) int { return 44*r.n + 4*t - r.bias }

// products writes, for each format and number of tokens, the product of groups of 16 rows with a panel, and the
// function that chooses among them.
func products(f *file, i *isa) {
	formats := integerFormats
	if i != avxvnni { // its products with float weights are AVX2's
		formats = append(append([]weights{}, formats...), floatFormats...)
	}
	for _, w := range formats {
		for n := 1; n <= i.width; n++ {
			f.function(productName(w, n, i), fmt.Sprintf("multiplies groups of 16 rows with a panel of %d tokens", n),
				join(bytes("w", "x"), pointer("out"), integer("stride", "steps", "groups")), nil)
			f.load("w", "SI", "x", "DX", "out", "DI", "stride", "R8", "steps", "R9", "groups", "R10")
			switch {
			case w.name[0] != 'Q':
				floatProduct(f, i, w, n)
			case i.wide:
				integerProduct512(f, w, n)
			default:
				integerProduct256(f, i, w, n)
			}
		}
	}
	s := f.stubs
	s.printf("\n// product%s multiplies groups of 16 rows with a panel of n tokens: out[t*stride+16*group+row]; stride is in bytes.\n", i.suffix)
	s.printf("func product%s(f Format, n int, w, x *byte, out *float32, stride, steps, groups int) {\nswitch f {\n", i.suffix)
	for _, w := range formats {
		s.printf("case %s:\nswitch n {\n", w.name)
		for n := 1; n <= i.width; n++ {
			s.printf("case %d:\n%s(w, x, out, stride, steps, groups)\n", n, productName(w, n, i))
		}
		s.printf("}\n")
	}
	s.printf("}\n}\n\nconst width%s = %d // tokens of a panel\n", i.suffix, i.width)
}

func productName(w weights, n int, i *isa) string {
	return fmt.Sprintf("product%sx%d%s", w.name, n, i.suffix)
}

// prefetch asks for the cache line at offset from the weights, far ahead.
func (f *file) prefetch(n, offset int) {
	if n <= 2 {
		f.op("PREFETCHT0 %d(SI)", offset+prefetchAhead)
	}
}

// integerProduct512: sums in Z0.., integer sums after them. A block's weights stay in registers while all tokens use them.
func integerProduct512(f *file, w weights, n int) {
	const low, high, scale, minimum, highMask, lowMask = 24, 25, 26, 27, 30, 31
	x := record{n: n}
	if n >= 11 { // keeps the offsets of a record within one byte, as EVEX scales them
		x.bias = 256
		f.op("ADDQ $256, DX")
	}
	sum := func(t int) string { return fmt.Sprintf("Z%d", t) }
	dot := func(t int) string { return fmt.Sprintf("Z%d", n+t) }
	// With few tokens there are registers for sums of the high nibbles, times 16, which saves the shift of the weights.
	split := n <= 4 && w.name != "Q8_0"
	dotHigh := func(t int) string { return fmt.Sprintf("Z%d", 2*n+t) }
	f.op("MOVL $0x0f0f0f0f, AX")
	f.op("VPBROADCASTD AX, Z%d", lowMask)
	if split {
		f.op("MOVL $0xf0f0f0f0, AX")
		f.op("VPBROADCASTD AX, Z%d", highMask)
	}
	f.label("group")
	f.op("MOVQ DX, BX")
	f.op("MOVQ R9, CX")
	for t := range n {
		f.op("VXORPS %s, %s, %s", sum(t), sum(t), sum(t))
	}
	f.label("block")
	f.prefetch(n, 0)
	f.op("VCVTPH2PS (SI), Z%d", scale)
	if w.name == "Q4_1" {
		f.op("VCVTPH2PS 32(SI), Z%d", minimum)
	}
	for t := range n {
		switch w.name {
		case "Q4_0":
			f.op("VPBROADCASTD %d(BX), %s", x.offsetQ4_0(t), dot(t))
		case "Q8_0":
			f.op("VPBROADCASTD %d(BX), %s", x.offsetQ8_0(t), dot(t))
		default:
			f.op("VPXORD %s, %s, %s", dot(t), dot(t), dot(t))
		}
		if split {
			f.op("VPXORD %s, %s, %s", dotHigh(t), dotHigh(t), dotHigh(t))
		}
	}
	if w.name == "Q8_0" {
		for j := range 8 {
			f.prefetch(n, w.data+64*j)
			v := low + j%2
			f.op("VMOVDQU64 %d(SI), Z%d", w.data+64*j, v)
			for t := range n {
				f.op("VPDPBUSD.BCST %d(BX), Z%d, %s", x.value(t, j), v, dot(t))
			}
		}
	} else {
		for j := range 4 {
			f.prefetch(n, w.data+64*j)
			f.op("VMOVDQU64 %d(SI), Z%d", w.data+64*j, high)
			f.op("VPANDD Z%d, Z%d, Z%d", lowMask, high, low)
			if split {
				f.op("VPANDD Z%d, Z%d, Z%d", highMask, high, high)
			} else {
				f.op("VPSRLD $4, Z%d, Z%d", high, high)
				f.op("VPANDD Z%d, Z%d, Z%d", lowMask, high, high)
			}
			for t := range n {
				f.op("VPDPBUSD.BCST %d(BX), Z%d, %s", x.value(t, j), low, dot(t))
			}
			for t := range n {
				d := dot(t)
				if split {
					d = dotHigh(t)
				}
				f.op("VPDPBUSD.BCST %d(BX), Z%d, %s", x.value(t, 4+j), high, d)
			}
		}
	}
	for t := range n {
		if split {
			f.op("VPSRAD $4, %s, %s", dotHigh(t), dotHigh(t)) // exact: a multiple of 16
			f.op("VPADDD %s, %s, %s", dotHigh(t), dot(t), dot(t))
		}
		f.op("VCVTDQ2PS %s, %s", dot(t), dot(t))
		f.op("VMULPS.BCST %d(BX), Z%d, Z%d", x.scale(t), scale, low)
		f.op("VFMADD231PS Z%d, %s, %s", low, dot(t), sum(t))
		if w.name == "Q4_1" {
			f.op("VFMADD231PS.BCST %d(BX), Z%d, %s", x.scaledSum(t), minimum, sum(t))
		}
	}
	f.op("ADDQ $%d, BX", 48*n)
	f.op("ADDQ $%d, SI", w.stepBytes)
	f.op("DECQ CX")
	f.op("JNZ block")
	f.op("MOVQ DI, AX")
	for t := range n {
		f.op("VMOVUPS %s, (AX)", sum(t))
		if t < n-1 {
			f.op("ADDQ R8, AX")
		}
	}
	f.op("ADDQ $64, DI")
	f.op("DECQ R10")
	f.op("JNZ group")
	f.end()
}

// integerProduct256: eight rows are a register, so a group has two halves. Up to two tokens fit with both halves at
// once; more go over the group twice, the second time from the cache.
func integerProduct256(f *file, i *isa, w weights, n int) {
	halves := 1
	if n <= 2 {
		halves = 2
	}
	x := record{n: n}
	sum := func(h, t int) string { return fmt.Sprintf("Y%d", h*n+t) }
	dot := func(h, t int) int { return halves*n + h*n + t }
	free := 2 * halves * n
	low, high, value, product := free, free+1, free+2, free+3
	mask, ones, scale, minimum := free+4, free+5, free+6, free+7
	y := func(r int) string { return fmt.Sprintf("Y%d", r) }
	broadcast := func(bits string, r int) {
		f.op("MOVL $%s, AX", bits)
		f.op("VMOVD AX, X%d", r)
		f.op("VPBROADCASTD X%d, Y%d", r, r)
	}
	if w.name == "Q8_0" {
		broadcast("0x80808080", mask)
	} else {
		broadcast("0x0f0f0f0f", mask)
	}
	broadcast("0x00010001", ones)

	f.label("group")
	f.op("MOVQ SI, R11") // R11: the scales of this half
	f.op("MOVQ SI, AX")
	f.op("MOVQ $%d, R12", 2/halves)
	f.label("half")
	f.op("MOVQ DX, BX")
	f.op("MOVQ R9, CX")
	for h := range halves {
		for t := range n {
			f.op("VXORPS %s, %s, %s", sum(h, t), sum(h, t), sum(h, t))
		}
	}
	f.label("block")
	f.prefetch(n, 0)
	for h := range halves {
		for t := range n {
			f.op("VPXOR %s, %s, %s", y(dot(h, t)), y(dot(h, t)), y(dot(h, t)))
		}
	}
	// VPMADDUBSW saturates at 16 bits: a pair of products must stay within. Nibbles do, and eight pairs of them too. With int8
	// weights the magnitude, 128 at most, is the unsigned side, and the activations, 127 at most, take the sign.
	for j := range w.pieces() {
		f.prefetch(n, w.data+64*j)
		for h := range halves {
			f.op("VMOVDQU %d(SI), %s", w.data+64*j+32*h, y(high))
			if w.name == "Q8_0" {
				if i.vnni {
					for t := range n {
						f.op("VPBROADCASTD %d(BX), %s", x.value(t, j), y(value))
						f.dotAccumulate(value, high, dot(h, t))
					}
					continue
				}
				f.op("VPXOR %s, %s, %s", y(mask), y(high), y(low)) // signed
				f.op("VPABSB %s, %s", y(low), y(high))
				for t := range n {
					f.op("VPBROADCASTD %d(BX), %s", x.value(t, j), y(value))
					f.op("VPSIGNB %s, %s, %s", y(low), y(value), y(value))
					f.op("VPMADDUBSW %s, %s, %s", y(value), y(high), y(product))
					f.op("VPMADDWD %s, %s, %s", y(ones), y(product), y(product))
					f.op("VPADDD %s, %s, %s", y(product), y(dot(h, t)), y(dot(h, t)))
				}
				continue
			}
			f.op("VPAND %s, %s, %s", y(mask), y(high), y(low))
			f.op("VPSRLD $4, %s, %s", y(high), y(high))
			f.op("VPAND %s, %s, %s", y(mask), y(high), y(high))
			for t := range n {
				for part, nibbles := range []int{low, high} {
					f.op("VPBROADCASTD %d(BX), %s", x.value(t, 4*part+j), y(value))
					if i.vnni {
						f.dotAccumulate(value, nibbles, dot(h, t))
					} else {
						f.op("VPMADDUBSW %s, %s, %s", y(value), y(nibbles), y(product))
						f.op("VPADDW %s, %s, %s", y(product), y(dot(h, t)), y(dot(h, t)))
					}
				}
			}
		}
	}
	for h := range halves {
		f.op("VCVTPH2PS %d(R11), %s", 16*h, y(scale))
		if w.name == "Q4_1" {
			f.op("VCVTPH2PS %d(R11), %s", 32+16*h, y(minimum))
		}
		for t := range n {
			d := y(dot(h, t))
			if w.name != "Q8_0" && !i.vnni {
				f.op("VPMADDWD %s, %s, %s", y(ones), d, d)
			}
			switch {
			case w.name == "Q4_0":
				f.op("VPBROADCASTD %d(BX), %s", x.offsetQ4_0(t), y(value))
				f.op("VPADDD %s, %s, %s", y(value), d, d)
			case w.name == "Q8_0" && i.vnni:
				f.op("VPBROADCASTD %d(BX), %s", x.offsetQ8_0(t), y(value))
				f.op("VPADDD %s, %s, %s", y(value), d, d)
			}
			f.op("VCVTDQ2PS %s, %s", d, d)
			f.op("VBROADCASTSS %d(BX), %s", x.scale(t), y(value))
			f.op("VMULPS %s, %s, %s", y(value), y(scale), y(value))
			f.op("VFMADD231PS %s, %s, %s", y(value), d, sum(h, t))
			if w.name == "Q4_1" {
				f.op("VBROADCASTSS %d(BX), %s", x.scaledSum(t), y(value))
				f.op("VFMADD231PS %s, %s, %s", y(value), y(minimum), sum(h, t))
			}
		}
	}
	f.op("ADDQ $%d, BX", 48*n)
	f.op("ADDQ $%d, SI", w.stepBytes)
	f.op("ADDQ $%d, R11", w.stepBytes)
	f.op("DECQ CX")
	f.op("JNZ block")
	f.op("MOVQ DI, R13")
	for t := range n {
		for h := range halves {
			f.op("VMOVUPS %s, %d(R13)", sum(h, t), 32*h)
		}
		if t < n-1 {
			f.op("ADDQ R8, R13")
		}
	}
	f.op("ADDQ $%d, DI", 32*halves)
	if halves == 1 {
		f.op("DECQ R12")
		f.op("JZ next")
		f.op("LEAQ 32(AX), SI")
		f.op("LEAQ 16(AX), R11")
		f.op("JMP half")
		f.label("next")
		f.op("SUBQ $32, SI") // the second half ran 32 bytes ahead
	}
	f.op("DECQ R10")
	f.op("JNZ group")
	f.end()
}

// pieces is how many times 64 bytes a block's integers take.
func (w weights) pieces() int {
	if w.name == "Q8_0" {
		return 8
	}
	return 4
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

// floatProduct: one FMA chain along k for each row and token. With few tokens several groups go together, or the
// chains would be too few to hide an FMA's latency.
func floatProduct(f *file, i *isa, w weights, n int) {
	together := map[int]int{1: 4, 2: 2, 3: 2}[n]
	if !i.wide && n == 3 {
		together = 0
	}
	if together > 1 {
		f.label("several")
		f.op("CMPQ R10, $%d", together)
		f.op("JLT single")
		floatGroups(f, i, w, n, together, "several")
		f.op("JMP several")
	}
	f.label("single")
	f.op("TESTQ R10, R10")
	f.op("JLE done")
	floatGroups(f, i, w, n, 1, "single")
	f.op("JMP single")
	f.label("done")
	f.end()
}

// floatGroups multiplies so many groups at once. They lie behind each other, steps*stepBytes apart.
func floatGroups(f *file, i *isa, w weights, n, groups int, name string) {
	parts := i.parts()
	acc := func(group, part, t int) string { return i.v((group*parts+part)*n + t) }
	weight := groups * parts * n
	value := weight + 1
	f.op("MOVQ R9, R11")
	f.op("IMUL3Q $%d, R11, R11", w.stepBytes)
	f.op("LEAQ (SI)(R11*2), R12") // groups 2 and 3
	f.op("MOVQ DX, BX")
	f.op("MOVQ R9, CX")
	for r := range groups * parts * n {
		f.op("VXORPS %s, %s, %s", i.v(r), i.v(r), i.v(r))
	}
	f.label(name + "Column")
	for g := range groups {
		base := []string{"(SI)", "(SI)(R11*1)", "(R12)", "(R12)(R11*1)"}[g]
		for p := range parts {
			from := fmt.Sprintf("%d%s", w.stepBytes/parts*p, base)
			switch w.name {
			case "F32":
				f.op("VMOVUPS %s, %s", from, i.v(weight))
			case "F16":
				f.op("VCVTPH2PS %s, %s", from, i.v(weight))
			case "BF16":
				f.op("VPMOVZXWD %s, %s", from, i.v(weight))
				f.op("VPSLLD $16, %s, %s", i.v(weight), i.v(weight))
			}
			for t := range n {
				if i.wide {
					f.op("VFMADD231PS.BCST %d(BX), %s, %s", 4*t, i.v(weight), acc(g, p, t))
				} else {
					f.op("VBROADCASTSS %d(BX), %s", 4*t, i.v(value))
					f.op("VFMADD231PS %s, %s, %s", i.v(value), i.v(weight), acc(g, p, t))
				}
			}
		}
	}
	f.op("ADDQ $%d, SI", w.stepBytes)
	if groups > 2 {
		f.op("ADDQ $%d, R12", w.stepBytes)
	}
	f.op("ADDQ $%d, BX", 4*n)
	f.op("DECQ CX")
	f.op("JNZ %sColumn", name)
	f.op("MOVQ DI, AX")
	for t := range n {
		for g := range groups {
			for p := range parts {
				f.op("VMOVUPS %s, %d(AX)", acc(g, p, t), 64*g+i.bytes()*p)
			}
		}
		if t < n-1 {
			f.op("ADDQ R8, AX")
		}
	}
	f.op("ADDQ $%d, DI", 64*groups)
	for range groups - 1 {
		f.op("ADDQ R11, SI")
	}
	f.op("SUBQ $%d, R10", groups)
}
