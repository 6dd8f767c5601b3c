package main

import (
	"fmt"
	"math"
)

// isa is an instruction set: what differs between them when a kernel is written once.
type isa struct {
	suffix string // of function names
	file   string // of file names
	wide   bool   // 16 lanes in a register and masks in K registers; else 8, and masks in vector registers
	vnni   bool   // VPDPBUSD
	width  int    // most tokens in a panel
}

var (
	avx512  = &isa{suffix: "AVX512", file: "avx512", wide: true, vnni: true, width: 12}
	avx2    = &isa{suffix: "AVX2", file: "avx2", width: 4}
	avxvnni = &isa{suffix: "AVXVNNI", file: "avxvnni", vnni: true, width: 4}
)

// lanes is the number of float32 in a register.
func (i *isa) lanes() int {
	if i.wide {
		return 16
	}
	return 8
}

// bytes is the size of a register.
func (i *isa) bytes() int { return 4 * i.lanes() }

// parts is how many registers make the 16 lanes of a reduction.
func (i *isa) parts() int { return 16 / i.lanes() }

// v names a vector register.
func (i *isa) v(n int) string {
	if i.wide {
		return fmt.Sprintf("Z%d", n)
	}
	return fmt.Sprintf("Y%d", n)
}

// constant is a float32 or a bit pattern that kernels use as a vector.
type constant struct {
	name string
	bits uint32
}

func bitsOf(v float32) uint32 { return math.Float32bits(v) }

// The constants are those of the reference (math.go, elementwise.go in package kernel).
var constants = []constant{
	{"expLow", bitsOf(-87.25)},
	{"expHigh", bitsOf(88.722832)},
	{"log2E", bitsOf(1.44269502)},
	{"ln2High", bitsOf(0.693145752)},
	{"ln2Low", bitsOf(1.42860677e-06)},
	{"exp0", bitsOf(0.00138145371)},
	{"exp1", bitsOf(0.00836874545)},
	{"exp2", bitsOf(0.0416683927)},
	{"exp3", bitsOf(0.166665211)},
	{"exp4", bitsOf(0.499999940)},
	{"one", bitsOf(1)},
	{"two", bitsOf(2)},
	{"half", bitsOf(0.5)},
	{"infinity", 0x7f800000},
	{"sign", 1 << 31},
	{"magnitude", 1<<31 - 1},
	{"tanhSplit", bitsOf(0.625)},
	{"tanh0", bitsOf(-0.00570499245)},
	{"tanh1", bitsOf(0.0206390917)},
	{"tanh2", bitsOf(-0.0537397154)},
	{"tanh3", bitsOf(0.133314416)},
	{"tanh4", bitsOf(-0.333332807)},
	{"erfOne", bitsOf(4)},
	{"erfSmall0", bitsOf(7.85386146e-05)},
	{"erfSmall1", bitsOf(-0.000801019371)},
	{"erfSmall2", bitsOf(0.00518832775)},
	{"erfSmall3", bitsOf(-0.0268538129)},
	{"erfSmall4", bitsOf(0.112835854)},
	{"erfSmall5", bitsOf(-0.376126260)},
	{"erfSmall6", bitsOf(0.128379166)},
	{"erfLarge0", bitsOf(0.000185572665)},
	{"erfLarge1", bitsOf(-0.00293959351)},
	{"erfLarge2", bitsOf(0.0218052622)},
	{"erfLarge3", bitsOf(-0.103037253)},
	{"erfLarge4", bitsOf(-0.638225794)},
	{"erfLarge5", bitsOf(-1.12703991)},
	{"erfLarge6", bitsOf(-0.000353740732)},
	{"rootHalf", bitsOf(0.707106769)},
	{"root2OverPi", bitsOf(0.797884583)},
	{"geluCubic", bitsOf(0.044715)},
	{"quantizeMax", bitsOf(127)},
}

// constants writes the table. AVX2 takes whole vectors from it; AVX-512 broadcasts single values.
func (f *file) constants(i *isa) {
	copies := 8
	if i.wide {
		copies = 1
	}
	f.text.WriteString("\n")
	for n, c := range constants {
		for j := range copies {
			fmt.Fprintf(&f.text, "DATA constants<>+%d(SB)/4, $0x%08x // %s\n", 4*(n*copies+j), c.bits, c.name)
		}
	}
	fmt.Fprintf(&f.text, "GLOBL constants<>(SB), RODATA|NOPTR, $%d\n", 4*len(constants)*copies)
}

// address is a constant's operand.
func (i *isa) address(name string) string {
	for n, c := range constants {
		if c.name == name {
			if i.wide {
				return fmt.Sprintf("constants<>+%d(SB)", 4*n)
			}
			return fmt.Sprintf("constants<>+%d(SB)", 32*n)
		}
	}
	check(fmt.Errorf("no constant %s", name))
	return ""
}

// withConstant writes an instruction whose first operand is a constant: op constant, regs.
func (i *isa) withConstant(f *file, op, name, regs string) {
	if i.wide {
		op += ".BCST"
	}
	// A compare has its predicate first.
	f.op("%s %s, %s", op, i.address(name), regs)
}

// loadConstant fills a register.
func (i *isa) loadConstant(f *file, name string, reg int) {
	f.op("VBROADCASTSS %s, %s", i.address(name), i.v(reg))
}

const (
	less    = 0x11 // LT, quiet: false if unordered
	greater = 0x1e // GT, quiet
)

// mask names the register of mask n: K1.. or Y15, Y14...
func (i *isa) mask(n int) string {
	if i.wide {
		return fmt.Sprintf("K%d", n+1)
	}
	return fmt.Sprintf("Y%d", 15-n)
}

// compare sets mask m where x is less or greater than a constant.
func (i *isa) compare(f *file, predicate int, x int, name string, m int) {
	op := "VCMPPS"
	if i.wide {
		op += ".BCST"
	}
	f.op("%s $0x%02x, %s, %s, %s", op, predicate, i.address(name), i.v(x), i.mask(m))
}

// zeroWhere clears x where mask m is set.
func (i *isa) zeroWhere(f *file, m, x int) {
	if i.wide {
		f.op("VXORPS %s, %s, %s, %s", i.v(x), i.v(x), i.mask(m), i.v(x))
	} else {
		f.op("VANDNPS %s, %s, %s", i.v(x), i.mask(m), i.v(x))
	}
}

// constantWhere sets x to a constant where mask m is set.
func (i *isa) constantWhere(f *file, m int, name string, x int) {
	if i.wide {
		f.op("VBROADCASTSS %s, %s, %s", i.address(name), i.mask(m), i.v(x))
	} else {
		f.op("VBLENDVPS %s, %s, %s, %s", i.mask(m), i.address(name), i.v(x), i.v(x))
	}
}

// selectWhere sets x to y where mask m is set.
func (i *isa) selectWhere(f *file, m, y, x int) {
	if i.wide {
		f.op("VMOVAPS %s, %s, %s", i.v(y), i.mask(m), i.v(x))
	} else {
		f.op("VBLENDVPS %s, %s, %s, %s", i.mask(m), i.v(y), i.v(x), i.v(x))
	}
}

// round rounds x to the nearest integer, ties to even.
func (i *isa) round(f *file, x, dst int) {
	if i.wide {
		f.op("VRNDSCALEPS $8, %s, %s", i.v(x), i.v(dst))
	} else {
		f.op("VROUNDPS $8, %s, %s", i.v(x), i.v(dst))
	}
}

// treeReduce folds 16 lanes, in registers a.. (parts of them), to the lowest of a: 16, 8, 4, 2, 1. tmp is one more.
func (i *isa) treeReduce(f *file, op string, a, tmp int) {
	if i.wide {
		f.op("VEXTRACTF64X4 $1, Z%d, Y%d", a, tmp)
		f.op("%s Y%d, Y%d, Y%d", op, tmp, a, a)
	} else {
		f.op("%s Y%d, Y%d, Y%d", op, a+1, a, a)
	}
	f.op("VEXTRACTF128 $1, Y%d, X%d", a, tmp)
	f.op("%s X%d, X%d, X%d", op, tmp, a, a)
	f.op("VPERMILPS $0x0e, X%d, X%d", a, tmp)
	f.op("%s X%d, X%d, X%d", op, tmp, a, a)
	f.op("VPERMILPS $0x01, X%d, X%d", a, tmp)
	f.op("%s X%d, X%d, X%d", op, tmp, a, a)
}

// end returns from a function that used vectors.
func (f *file) end() {
	f.op("VZEROUPPER")
	f.ret()
}
