package main

import "fmt"

// tile512 is a product of 16 rows with n tokens while it is written. Its registers: sums in Z0.., integer sums after them,
// and those below.
type tile512 struct {
	*file
	w weights
	n int
	x record
	// With few tokens there are registers for sums of the high nibbles, times 16, which saves the shift of the weights.
	split bool
}

const (
	low512     = 24 // what is multiplied
	nibbles512 = 25
	scale512   = 26
	upper512   = 27 // bits above the nibbles, and then
	minimum512 = 27
	d512       = 28 // the scales of scales
	dmin512    = 29 // and of minima
	mask512    = 30 // of the high nibbles, or of the upper bits
	lowMask512 = 31
)

func (f tile512) sum(t int) string     { return fmt.Sprintf("Z%d", t) }
func (f tile512) dot(t int) string     { return fmt.Sprintf("Z%d", f.n+t) }
func (f tile512) dotHigh(t int) string { return fmt.Sprintf("Z%d", 2*f.n+t) }

// integerProduct512: a block's weights stay in registers while all tokens use them.
func integerProduct512(file *file, w weights, n int) {
	f := tile512{file: file, w: w, n: n, x: record{n: n}, split: n <= 4 && w.bits == 4}
	if n >= 9 { // keeps the offsets of a record within one byte, as EVEX scales them
		f.x.bias = 256
		f.op("ADDQ $256, DX")
	}
	f.op("MOVL $0x0f0f0f0f, AX")
	f.op("VPBROADCASTD AX, Z%d", lowMask512)
	if f.split {
		f.op("MOVL $0xf0f0f0f0, AX")
		f.op("VPBROADCASTD AX, Z%d", mask512)
	} else if w.bits == 5 || w.bits == 6 {
		f.op("MOVL $%s, AX", w.upperMask())
		f.op("VPBROADCASTD AX, Z%d", mask512)
	}
	f.label("group")
	f.op("MOVQ DX, BX")
	if w.super() {
		f.op("LEAQ (R9*8), CX")
	} else {
		f.op("MOVQ R9, CX")
	}
	for t := range n {
		f.op("VXORPS %s, %s, %s", f.sum(t), f.sum(t), f.sum(t))
	}
	if w.super() {
		f.label("super")
		f.prefetchSuperHead(n)
		f.op("VCVTPH2PS (SI), Z%d", d512)
		if w.minima {
			f.op("VCVTPH2PS 32(SI), Z%d", dmin512)
		}
		f.op("LEAQ %d(SI), R11", superScales)
		f.op("ADDQ $%d, SI", superHead)
	}
	f.label("block")
	f.prefetchHead(n, w)
	for s, quads := range w.sections() {
		f.start(s)
		f.integers(s, quads)
		f.loadScales(s)
		f.finish()
	}
	f.op("ADDQ $%d, BX", recordBytes*n)
	if w.super() {
		f.op("ADDQ $%d, SI", w.integerBytes())
		f.op("ADDQ $%d, R11", blockScales)
		f.op("DECQ CX")
		f.op("JZ sums")
		f.op("TESTQ $7, CX")
		f.op("JNZ block")
		f.op("JMP super")
		f.label("sums")
	} else {
		f.op("ADDQ $%d, SI", w.stepBytes())
		f.op("DECQ CX")
		f.op("JNZ block")
	}
	f.op("MOVQ DI, AX")
	for t := range n {
		f.op("VMOVUPS %s, (AX)", f.sum(t))
		if t < n-1 {
			f.op("ADDQ R8, AX")
		}
	}
	f.op("ADDQ $64, DI")
	f.op("DECQ R10")
	f.op("JNZ group")
	f.end()
}

// start gives a section's integer sums their offsets, or zero.
func (f tile512) start(section int) {
	for t := range f.n {
		switch f.w.name {
		case "Q4_0":
			f.op("VPBROADCASTD %d(BX), %s", f.x.offsetQ4_0(t), f.dot(t))
		case "Q5_0":
			f.op("VPBROADCASTD %d(BX), %s", f.x.offsetQ5_0(t), f.dot(t))
		case "Q8_0":
			f.op("VPBROADCASTD %d(BX), %s", f.x.offsetQ8_0(t), f.dot(t))
		case "Q6_K":
			f.op("VPBROADCASTD %d(BX), %s", f.x.offsetQ6_K(t, section), f.dot(t))
		default:
			f.op("VPXORD %s, %s, %s", f.dot(t), f.dot(t), f.dot(t))
		}
		if f.split {
			f.op("VPXORD %s, %s, %s", f.dotHigh(t), f.dotHigh(t), f.dotHigh(t))
		}
	}
}

// integers adds a section's products to the integer sums.
func (f tile512) integers(section int, quads []int) {
	vector, upper := -1, -1
	for _, k := range quads {
		if at := f.w.piece(k); at != vector && section == 0 {
			f.prefetch(f.n, at)
		}
		values := f.quad(k, &vector, &upper)
		for t := range f.n {
			dot := f.dot(t)
			if f.split && k >= 4 {
				dot = f.dotHigh(t)
			}
			f.op("VPDPBUSD.BCST %d(BX), Z%d, %s", f.x.value(t, k), values, dot)
		}
	}
}

// quad makes the integers of quad k, and says in which register. vector and upper are what is loaded of the nibbles and of
// the bits above them.
func (f tile512) quad(k int, vector, upper *int) (values int) {
	w := f.w
	if w.bits == 8 {
		values = low512 + k%2 // the next load need not wait
		f.op("VMOVDQU64 %d(SI), Z%d", w.piece(k), values)
		return values
	}
	if at := w.piece(k); at != *vector {
		*vector = at
		f.op("VMOVDQU64 %d(SI), Z%d", at, nibbles512)
	}
	switch {
	case w.bits > 4:
		at, bit := w.upper(k)
		if at != *upper {
			*upper = at
			f.op("VMOVDQU64 %d(SI), Z%d", at, upper512)
		}
		f.combine(k, bit)
		return low512
	case k < 4:
		f.op("VPANDD Z%d, Z%d, Z%d", lowMask512, nibbles512, low512)
		return low512
	case f.split:
		f.op("VPANDD Z%d, Z%d, Z%d", mask512, nibbles512, nibbles512)
	default:
		f.op("VPSRLD $4, Z%d, Z%d", nibbles512, nibbles512)
		f.op("VPANDD Z%d, Z%d, Z%d", lowMask512, nibbles512, nibbles512)
	}
	return nibbles512
}

// combine makes the integers of quad k: its nibbles below its upper bits, which begin at bit.
func (f tile512) combine(k, bit int) {
	from := low512
	switch {
	case bit < 4:
		f.op("VPSLLD $%d, Z%d, Z%d", 4-bit, upper512, low512)
	case bit > 4:
		f.op("VPSRLD $%d, Z%d, Z%d", bit-4, upper512, low512)
	default:
		from = upper512
	}
	f.op("VPANDD Z%d, Z%d, Z%d", mask512, from, low512)
	if k >= 4 {
		f.op("VPSRLD $4, Z%d, Z%d", nibbles512, nibbles512)
	}
	f.op("VPTERNLOGD $0xf8, Z%d, Z%d, Z%d", lowMask512, nibbles512, low512) // low |= nibbles & lowMask
}

// loadScales loads the rows' scales, and minima, of a section.
func (f tile512) loadScales(section int) {
	if !f.w.super() {
		f.op("VCVTPH2PS (SI), Z%d", scale512)
		if f.w.minima {
			f.op("VCVTPH2PS 32(SI), Z%d", minimum512)
		}
		return
	}
	extend := "VPMOVZXBD"
	if !f.w.minima {
		extend = "VPMOVSXBD"
	}
	f.op("%s %d(R11), Z%d", extend, 16*section, scale512)
	f.op("VCVTDQ2PS Z%d, Z%d", scale512, scale512)
	f.op("VMULPS Z%d, Z%d, Z%d", d512, scale512, scale512)
	if f.w.minima {
		f.op("VPMOVZXBD 16(R11), Z%d", minimum512)
		f.op("VCVTDQ2PS Z%d, Z%d", minimum512, minimum512)
		f.op("VMULPS Z%d, Z%d, Z%d", dmin512, minimum512, minimum512)
	}
}

// finish scales the integer sums and adds them to the sums.
func (f tile512) finish() {
	for t := range f.n {
		if f.split {
			f.op("VPSRAD $4, %s, %s", f.dotHigh(t), f.dotHigh(t)) // exact: a multiple of 16
			f.op("VPADDD %s, %s, %s", f.dotHigh(t), f.dot(t), f.dot(t))
		}
		f.op("VCVTDQ2PS %s, %s", f.dot(t), f.dot(t))
		f.op("VMULPS.BCST %d(BX), Z%d, Z%d", f.x.scale(t), scale512, low512)
		f.op("VFMADD231PS Z%d, %s, %s", low512, f.dot(t), f.sum(t))
		if f.w.minima {
			f.op("VFMADD231PS.BCST %d(BX), Z%d, %s", f.x.scaledSum(t), minimum512, f.sum(t))
		}
	}
}
