package main

import "fmt"

// AMX multiplies tiles: 16 tokens with 16 rows over 32 columns in one instruction. Its integers are exact, so only these
// have to be tiles; the scales are AVX-512's, as in product512.go.
//
// A group's blocks are first expanded, once for all panels: a head of two vectors, the rows' float32 scales and their
// minima (of Q6_K: the scales of the first and of the last 16 columns), and the integers as signed bytes, in the order of
// a packed Q8_0. So the products depend on a format only by its shape.

const (
	expandedHead  = 128 // of an expanded block
	expandedBytes = expandedHead + 8*64
	tileBytes     = 16 * 64
	mostTile      = 16 // tokens in a panel
	leastTile     = 11 // as 33 tokens make three panels, and fewer than 32 are none of AMX's business
)

// shape is what formats that share their products have in common.
type shape struct {
	name   string
	minima bool
	halves bool // a scale for each 16 columns
}

func shapes() []shape {
	return []shape{{name: "Plain"}, {name: "Minima", minima: true}, {name: "Halves", halves: true}}
}

func (w weights) shape() string {
	switch {
	case w.minima:
		return "Minima"
	case len(w.sections()) == 2:
		return "Halves"
	}
	return "Plain"
}

// zero is what stands for zero among a packed format's unsigned integers.
func (w weights) zero() int {
	switch w.name {
	case "Q8_0":
		return 128
	case "Q4_0":
		return 8
	case "Q5_0":
		return 16
	case "Q6_K":
		return 32
	}
	return 0
}

// tiles writes what AMX needs beside AVX-512.
func tiles(f *file) {
	for _, w := range integerFormats() {
		expand(f, w)
	}
	for _, s := range shapes() {
		for n := leastTile; n <= mostTile; n++ {
			f.tileConfig(s, n)
			tileProduct(f, tileName(s, n), fmt.Sprintf("multiplies an expanded group of 16 rows with panels of %d tokens", n), s, n, wholeProduct)
		}
	}
	tileParts(f)
	s := f.stubs
	s.printf("\n// expandAMX expands so many records of a group.\nfunc expandAMX(f Format, dst, w *byte, steps int) {\nswitch f {\n")
	for _, w := range integerFormats() {
		s.printf("case %s:\nexpand%sAMX(dst, w, steps)\n", w.name, w.name)
	}
	s.printf("}\n}\n")
	s.printf("\n// tilesAMX multiplies an expanded group of 16 rows with panels of n tokens: out[t*stride+row], or adds to that unless\n// it is the first part of the columns. The panels are skip bytes apart; stride is in bytes; spare is memory for two tiles.\n")
	s.printf("func tilesAMX(f Format, n int, w, x *byte, out *float32, spare *byte, stride, blocks, panels, skip, first int) {\nswitch f {\n")
	for _, sh := range shapes() {
		names := ""
		for _, w := range integerFormats() {
			if w.shape() == sh.name {
				names += ", " + w.name
			}
		}
		s.printf("case %s:\nswitch n {\n", names[2:])
		for n := leastTile; n <= mostTile; n++ {
			s.printf("case %d:\n%s(w, x, out, spare, stride, blocks, panels, skip, first)\n", n, tileName(sh, n))
		}
		s.printf("}\n")
	}
	s.printf("}\n}\n\nconst (\nexpandedBytes = %d // of a block\ntileBytes = %d\n)\n", expandedBytes, tileBytes)
}

func tileName(s shape, n int) string { return fmt.Sprintf("tiles%sx%dAMX", s.name, n) }

// expand writes the function that expands a format's records.
func expand(file *file, w weights) {
	const zero = 23 // a register beside those of tile512
	f := tile512{file: file, w: w}
	f.function("expand"+w.name+"AMX", "expands records of a group of 16 rows", join(bytes("dst", "w"), integer("steps")), nil)
	f.load("dst", "DI", "w", "SI", "steps", "R9")
	f.op("MOVL $0x0f0f0f0f, AX")
	f.op("VPBROADCASTD AX, Z%d", lowMask512)
	if w.bits == 5 || w.bits == 6 {
		f.op("MOVL $%s, AX", w.upperMask())
		f.op("VPBROADCASTD AX, Z%d", mask512)
	}
	if w.zero() != 0 {
		f.op("MOVL $%d, AX", w.zero())
		f.op("VPBROADCASTB AX, Z%d", zero)
	}
	f.label("record")
	if w.super() {
		f.op("VCVTPH2PS (SI), Z%d", d512)
		if w.minima {
			f.op("VCVTPH2PS 32(SI), Z%d", dmin512)
		}
		f.op("LEAQ %d(SI), R11", superScales)
		f.op("ADDQ $%d, SI", superHead)
		f.op("MOVQ $%d, CX", w.blocks)
		f.label("block")
	}
	for s, quads := range w.sections() {
		f.loadScales(s)
		f.op("VMOVUPS Z%d, %d(DI)", scale512, 64*s)
		if w.minima {
			f.op("VMOVUPS Z%d, 64(DI)", minimum512)
		}
		vector, upper := -1, -1
		for _, k := range quads {
			values := f.quad(k, &vector, &upper)
			if w.zero() != 0 {
				f.op("VPSUBB Z%d, Z%d, Z%d", zero, values, values)
			}
			f.op("VMOVDQU64 Z%d, %d(DI)", values, expandedHead+64*k)
		}
	}
	f.op("ADDQ $%d, DI", expandedBytes)
	if w.super() {
		f.op("ADDQ $%d, SI", w.integerBytes())
		f.op("ADDQ $%d, R11", blockScales)
		f.op("DECQ CX")
		f.op("JNZ block")
	} else {
		f.op("ADDQ $%d, SI", w.stepBytes())
	}
	f.op("DECQ R9")
	f.op("JNZ record")
	f.end()
}

// tileConfig writes the shapes of the tiles: sums in 0 and 1, tokens in 4 and 5, weights in 6 and 7.
func (f *file) tileConfig(s shape, n int) {
	columns := 32
	if s.halves {
		columns = 16
	}
	var config [64]byte
	config[0] = 1 // the palette
	set := func(tile, rows, bytes int) { config[16+2*tile], config[48+tile] = byte(bytes), byte(rows) }
	for i := range 2 {
		set(i, n, 64)
		set(4+i, n, columns)
		set(6+i, columns/4, 64)
	}
	name := fmt.Sprintf("config%sx%d<>", s.name, n)
	f.text.WriteString("\n")
	for i := 0; i < len(config); i += 8 {
		var word uint64
		for j := range 8 {
			word |= uint64(config[i+j]) << (8 * j)
		}
		fmt.Fprintf(&f.text, "DATA %s+%d(SB)/8, $0x%016x\n", name, i, word)
	}
	fmt.Fprintf(&f.text, "GLOBL %s(SB), RODATA|NOPTR, $%d\n", name, len(config))
}

// tileProduct writes the product with panels of n tokens. The sums are in Z0.., one for each token, for all columns of
// the call; two tiles are multiplied, stored, loaded again, scaled and added.
func tileProduct(file *file, name, doc string, s shape, n int, p part) {
	f := tileFile{file, s, record{n: n}, p}
	f.function(name, doc, join(bytes("w", "x"), pointer("out"), bytes("spare"), integer("stride", "blocks", "panels", "skip", "first")), nil)
	f.load("w", "SI", "x", "DX", "out", "DI", "spare", "R12", "stride", "R8", "blocks", "R9", "panels", "R10", "skip", "R11")
	f.op("LEAQ config%sx%d<>(SB), AX", s.name, n)
	f.amx("LDTILECFG (AX)", 0x78, 0x49, 0x00)
	f.label("panel")
	f.op("MOVQ DX, BX")
	f.op("MOVQ SI, R13")
	f.op("MOVQ R9, CX")
	f.op("CMPQ %s, $0", f.param("first"))
	f.op("JEQ more")
	for t := range n {
		f.op("VXORPS Z%d, Z%d, Z%d", t, t, t)
	}
	f.op("JMP blocks")
	f.label("more")
	f.eachSum(n, "VMOVUPS (AX), Z%d")
	f.label("blocks")
	if s.halves {
		f.step(1)
		f.op("JNZ blocks")
	} else {
		f.op("CMPQ CX, $2")
		f.op("JLT last")
		f.label("two")
		f.step(2)
		f.op("CMPQ CX, $2")
		f.op("JGE two")
		f.op("TESTQ CX, CX")
		f.op("JZ sums")
		f.label("last")
		f.step(1)
		f.label("sums")
	}
	f.eachSum(n, "VMOVUPS Z%d, (AX)")
	f.op("MOVQ AX, DI")
	f.op("ADDQ R11, DX")
	f.op("DECQ R10")
	f.op("JNZ panel")
	f.amx("TILERELEASE", 0x78, 0x49, 0xc0)
	f.end()
}

type tileFile struct {
	*file
	s    shape
	x    record
	part part
}

// part is what is written of a product: all of it, or what shows where its time goes.
type part struct{ tiles, floats, oneTile bool }

var wholeProduct = part{tiles: true, floats: true}

// tileParts writes the product of 16 tokens again with its tiles alone, its floats alone, and its floats beside one tile
// instruction for every two blocks, which does nothing. A benchmark sets them beside the whole.
func tileParts(f *file) {
	for _, p := range []struct {
		name, doc string
		part      part
	}{
		{"tilesAloneAMX", "is tilesMinimax16AMX without what its floats do", part{tiles: true}},
		{"floatsAloneAMX", "is tilesMinimax16AMX without its tiles, on sums that are there already", part{floats: true}},
		{"floatsBesideTileAMX", "is floatsAloneAMX with an instruction for every two blocks that sets a tile to zero", part{floats: true, oneTile: true}},
	} {
		tileProduct(f, p.name, p.doc, shapes()[1], mostTile, p.part)
	}
}

// eachSum moves the sums from or to out, and leaves AX behind the panel.
func (f tileFile) eachSum(n int, format string) {
	f.op("MOVQ DI, AX")
	for t := range n {
		f.op(format, t)
		f.op("ADDQ R8, AX")
	}
}

// step takes the next blocks: two tiles, if they are two blocks or a block of two halves.
func (f tileFile) step(blocks int) {
	f.op("MOVQ $32, R14")
	f.op("MOVQ $64, AX")
	pairs := blocks
	if f.s.halves {
		pairs = 2
	}
	if f.part.oneTile {
		f.tileZero(0)
	}
	if f.part.tiles {
		f.tilesOf(pairs)
	}
	if f.part.floats {
		f.floatsOf(pairs)
	}
	f.op("ADDQ $%d, BX", recordBytes*f.x.n*blocks)
	f.op("ADDQ $%d, R13", expandedBytes*blocks)
	f.op("SUBQ $%d, CX", blocks)
}

// tilesOf multiplies the step's pairs of tiles, and stores them to spare memory.
func (f tileFile) tilesOf(pairs int) {
	for i := range pairs {
		x, w := recordBytes*f.x.n*i, expandedBytes*i+expandedHead
		if f.s.halves {
			x, w = 16*i, expandedHead+256*i
		}
		f.tileZero(i)
		f.tileLoad(4+i, "BX", x, "R14")
		f.tileLoad(6+i, "R13", w, "AX")
		f.tileDot(i, 4+i, 6+i)
	}
	for i := range pairs {
		f.tileStore(i, "R12", tileBytes*i, "AX")
	}
}

// floatsOf scales the integers in spare memory, and adds them to the sums.
func (f tileFile) floatsOf(pairs int) {
	for i := range pairs {
		x, w := recordBytes*f.x.n*i, expandedBytes*i
		if f.s.halves {
			x, w = 0, 64*i
		}
		f.op("VMOVUPS %d(R13), Z30", w)
		if f.s.minima {
			f.op("VMOVUPS %d(R13), Z31", w+64)
		}
		for t := range f.x.n {
			scale, dot := 16+t%7, 23+t%7
			f.op("VMULPS.BCST %d(BX), Z30, Z%d", x+f.x.scale(t), scale)
			f.op("VCVTDQ2PS %d(R12), Z%d", tileBytes*i+64*t, dot)
			f.op("VFMADD231PS Z%d, Z%d, Z%d", scale, dot, t)
			if f.s.minima {
				f.op("VFMADD231PS.BCST %d(BX), Z31, Z%d", x+f.x.scaledSum(t), t)
			}
		}
	}
}

// Go's assembler knows no tiles. These instructions have three-byte VEX prefixes, of map 0F38; the prefix's last byte has the
// second source inverted, and which of the tables it is: 0x78 none, 0x7b F2, 0x7a F3.

func (f *file) amx(text string, prefix, opcode int, rest ...int) {
	f.vex(text, 0xe2, prefix, opcode, rest...)
}

func (f *file) vex(text string, extension, prefix, opcode int, rest ...int) {
	line := fmt.Sprintf("BYTE $0xc4; BYTE $0x%02x; BYTE $0x%02x; BYTE $0x%02x", extension, prefix, opcode)
	for _, b := range rest {
		line += fmt.Sprintf("; BYTE $0x%02x", b)
	}
	f.op("%s // %s", line, text)
}

func (f *file) tileZero(tile int) {
	f.amx(fmt.Sprintf("TILEZERO T%d", tile), 0x7b, 0x49, 0xc0|tile<<3)
}

// tileDot is TDPBSSD: sums += tokens * weights, by fours of signed bytes.
func (f *file) tileDot(sums, tokens, weights int) {
	f.amx(fmt.Sprintf("TDPBSSD T%d, T%d, T%d", weights, tokens, sums), (^weights&15)<<3|0x03, 0x5e, 0xc0|sums<<3|tokens)
}

func (f *file) tileLoad(tile int, base string, offset int, stride string) {
	f.tileMemory(fmt.Sprintf("TILELOADD %d(%s)(%s*1), T%d", offset, base, stride, tile), 0x7b, tile, base, offset, stride)
}

func (f *file) tileStore(tile int, base string, offset int, stride string) {
	f.tileMemory(fmt.Sprintf("TILESTORED T%d, %d(%s)(%s*1)", tile, offset, base, stride), 0x7a, tile, base, offset, stride)
}

// tileMemory moves a tile whose rows lie stride bytes apart.
func (f *file) tileMemory(text string, prefix, tile int, base string, offset int, stride string) {
	number := map[string]int{"AX": 0, "BX": 3, "R12": 12, "R13": 13, "R14": 14}
	b, i := number[base], number[stride]
	extension := 0xe2 &^ (i >> 3 << 6) &^ (b >> 3 << 5)
	f.vex(text, extension, prefix, 0x4b, 0x84|tile<<3, i&7<<3|b&7,
		offset&0xff, offset>>8&0xff, offset>>16&0xff, offset>>24&0xff)
}
