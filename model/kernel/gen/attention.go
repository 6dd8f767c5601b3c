package main

import "fmt"

// A tile is 64 positions: four vectors of 16, or eight of 8.

// cacheFormats are the formats of keys and values.
var cacheFormats = []struct {
	name string
	size int
}{{"F16", 2}, {"F32", 4}}

// loadCached loads a vector of keys or values as float32.
func (f *file) loadCached(i *isa, format, from string, reg int) {
	if format == "F16" {
		f.op("VCVTPH2PS %s, %s", from, i.v(reg))
	} else {
		f.op("VMOVUPS %s, %s", from, i.v(reg))
	}
}

// sixteens is how many vectors of 16 a kernel keeps for each of n heads: enough chains to hide an FMA's latency, and
// few enough for the registers.
func (i *isa) sixteens(n int) int {
	if i.wide {
		return 4
	}
	return map[int]int{1: 4, 2: 2, 3: 2, 4: 1}[n]
}

// heads is the most query heads a call takes.
func (i *isa) heads() int {
	if i.wide {
		return 6
	}
	return 4
}

func attention(f *file, i *isa) {
	for _, c := range cacheFormats {
		for n := 1; n <= i.heads(); n++ {
			scores(f, i, c.name, c.size, n)
			values(f, i, c.name, c.size, n)
		}
		f.stubs.printf("\n// scores%s%s computes the scaled products of n queries and the keys of a tile.\n", c.name, i.suffix)
		f.stubs.printf("func scores%s%s(n int, out, q *float32, keys *byte, dim int, scale float32) {\nswitch n {\n", c.name, i.suffix)
		for n := 1; n <= i.heads(); n++ {
			f.stubs.printf("case %d:\nscores%sx%d%s(out, q, keys, dim, scale)\n", n, c.name, n, i.suffix)
		}
		f.stubs.printf("}\n}\n")
		f.stubs.printf("\n// values%s%s adds up the values of count positions by n rows of weights.\n", c.name, i.suffix)
		f.stubs.printf("func values%s%s(n int, out, weights *float32, values, next *byte, width, count int) {\nswitch n {\n", c.name, i.suffix)
		for n := 1; n <= i.heads(); n++ {
			f.stubs.printf("case %d:\nvalues%sx%d%s(out, weights, values, next, width, count)\n", n, c.name, n, i.suffix)
		}
		f.stubs.printf("}\n}\n")
	}
	f.stubs.printf("\nconst attentionHeads%s = %d // most query heads of one call\n", i.suffix, i.heads())
	softmaxTile(f, i)
	merge(f, i)
}

// scores: one FMA chain along the dimensions for each head and position; lane = position.
func scores(f *file, i *isa, format string, size, n int) {
	blocks := i.sixteens(n)
	vectors := blocks * i.parts()
	acc := func(h, v int) string { return i.v(h*vectors + v) }
	q := func(h int) int { return n*vectors + h }
	key := n*vectors + n

	f.function(fmt.Sprintf("scores%sx%d%s", format, n, i.suffix), "computes out = keys * q * scale for a tile of 64 positions",
		join(pointer("out", "q"), bytes("keys"), integer("dim"), single("scale")), nil)
	f.load("out", "DI", "q", "DX", "keys", "SI", "dim", "R9")
	f.op("LEAQ (R9*4), R13") // from one query to the next
	f.op("MOVQ R9, R11")
	f.op("IMUL3Q $%d, R11, R11", 16*size) // from one block of 16 positions to the next
	once := blocks == 4
	if once { // R10: the tile's values, which lie behind the keys
		f.op("LEAQ (SI)(R11*4), R10")
	} else { // R10: rounds
		f.op("MOVQ $%d, R10", 4/blocks)
	}
	f.label("blocks")
	for r := range n * vectors {
		f.op("VXORPS %s, %s, %s", i.v(r), i.v(r), i.v(r))
	}
	f.op("MOVQ DX, BX")
	if n > 3 {
		f.op("LEAQ (R13)(R13*2), AX")
		f.op("ADDQ DX, AX") // the fourth query
	}
	f.op("MOVQ SI, R8") // keys of blocks 0 and 1, 2 and 3
	f.op("LEAQ (SI)(R11*2), R12")
	f.op("MOVQ R9, CX")
	f.label("dimension")
	for h := range n {
		base := "BX"
		if h >= 3 {
			base = "AX"
		}
		f.op("VBROADCASTSS (%s)%s, %s", base, []string{"", "(R13*1)", "(R13*2)"}[h%3], i.v(q(h)))
	}
	for b := range blocks {
		base := []string{"(R8)", "(R8)(R11*1)", "(R12)", "(R12)(R11*1)"}[b]
		for p := range i.parts() {
			f.loadCached(i, format, fmt.Sprintf("%d%s", i.lanes()*size*p, base), key)
			for h := range n {
				f.op("VFMADD231PS %s, %s, %s", i.v(key), i.v(q(h)), acc(h, b*i.parts()+p))
			}
		}
	}
	if once {
		for line := 0; line < 64*size; line += 64 {
			f.op("PREFETCHT0 %d(R10)", line)
		}
		f.op("ADDQ $%d, R10", 64*size)
	}
	f.op("ADDQ $%d, R8", 16*size)
	if blocks > 2 {
		f.op("ADDQ $%d, R12", 16*size)
	}
	f.op("ADDQ $4, BX")
	if n > 3 {
		f.op("ADDQ $4, AX")
	}
	f.op("DECQ CX")
	f.op("JNZ dimension")
	f.op("VBROADCASTSS %s, %s", f.param("scale"), i.v(key))
	for h := range n {
		for v := range vectors {
			f.op("VMULPS %s, %s, %s", i.v(key), acc(h, v), acc(h, v))
			f.op("VMOVUPS %s, %d(DI)", acc(h, v), 256*h+i.bytes()*v)
		}
	}
	if !once {
		f.op("ADDQ $%d, DI", 64*blocks)
		for range blocks {
			f.op("ADDQ R11, SI")
		}
		f.op("DECQ R10")
		f.op("JNZ blocks")
	}
	f.end()
}

// values: one FMA chain along the positions for each head and dimension; lane = dimension.
func values(f *file, i *isa, format string, size, n int) {
	f.function(fmt.Sprintf("values%sx%d%s", format, n, i.suffix), "computes out = weights * values over count positions",
		join(pointer("out", "weights"), bytes("values", "next"), integer("width", "count")), nil)
	f.load("out", "DI", "weights", "DX", "values", "SI", "next", "R8", "width", "R9", "count", "R10")
	f.op("LEAQ (R9*4), R13") // from one head's output to the next
	f.op("MOVQ R9, R11")
	f.op("IMUL3Q $%d, R11, R11", size) // from one position to the next
	part := func(blocks int) {
		vectors := blocks * i.parts()
		acc := func(h, v int) string { return i.v(h*vectors + v) }
		weight := func(h int) int { return n*vectors + h }
		value := n*vectors + n
		name := fmt.Sprintf("dims%d", 16*blocks)
		f.label(name)
		f.op("CMPQ R9, $%d", 16*blocks)
		f.op("JLT %sEnd", name)
		for r := range n * vectors {
			f.op("VXORPS %s, %s, %s", i.v(r), i.v(r), i.v(r))
		}
		f.op("MOVQ SI, AX")
		f.op("MOVQ DX, BX")
		f.op("MOVQ R10, CX")
		f.label(name + "Position")
		for h := range n {
			f.op("VBROADCASTSS %d(BX), %s", 256*h, i.v(weight(h)))
		}
		for v := range vectors {
			f.loadCached(i, format, fmt.Sprintf("%d(AX)", i.lanes()*size*v), value)
			for h := range n {
				f.op("VFMADD231PS %s, %s, %s", i.v(value), i.v(weight(h)), acc(h, v))
			}
		}
		if blocks == 4 { // the next tile's keys, as fast as this one's values are used
			f.op("PREFETCHT0 (R8)")
			f.op("PREFETCHT0 64(R8)")
			f.op("ADDQ $128, R8")
		}
		f.op("ADDQ R11, AX")
		f.op("ADDQ $4, BX")
		f.op("DECQ CX")
		f.op("JNZ %sPosition", name)
		f.op("MOVQ DI, AX")
		for h := range n {
			for v := range vectors {
				f.op("VMOVUPS %s, %d(AX)", acc(h, v), i.bytes()*v)
			}
			if h < n-1 {
				f.op("ADDQ R13, AX")
			}
		}
		f.op("ADDQ $%d, DI", 64*blocks)
		f.op("ADDQ $%d, SI", 16*blocks*size)
		f.op("SUBQ $%d, R9", 16*blocks)
		f.op("JMP %s", name)
		f.label(name + "End")
	}
	if b := i.sixteens(n); b > 1 {
		part(b)
	}
	part(1)
	f.end()
}

// softmaxTile: each query's 64 scores become exp(score - maximum), with their sum.
func softmaxTile(f *file, i *isa) {
	const x, t1, t2, acc, shift = 0, 1, 2, 4, 6
	f.function("softmaxTile"+i.suffix, "replaces the 64 scores of n queries by exp(score - maximum); weights are maximum and sum",
		join(pointer("scores", "weights"), integer("n")), nil)
	f.load("scores", "SI", "weights", "DI", "n", "CX")
	vectors := 64 / i.lanes()
	f.loop("query", func() {
		for p := range i.parts() {
			f.op("VMOVUPS %d(SI), %s", i.bytes()*p, i.v(acc+p))
		}
		for v := i.parts(); v < vectors; v++ {
			r := i.v(acc + v%i.parts())
			f.op("VMAXPS %d(SI), %s, %s", i.bytes()*v, r, r)
		}
		i.treeReduce(f, "VMAXPS", acc, x)
		f.op("VMOVSS X%d, (DI)", acc)
		f.op("VBROADCASTSS X%d, %s", acc, i.v(shift))
		for v := range vectors {
			f.op("VMOVUPS %d(SI), %s", i.bytes()*v, i.v(x))
			f.op("VSUBPS %s, %s, %s", i.v(shift), i.v(x), i.v(x))
			i.exp(f, x, t1, t2, true)
			f.op("VMOVUPS %s, %d(SI)", i.v(x), i.bytes()*v)
			r := i.v(acc + v%i.parts())
			if v < i.parts() {
				f.op("VMOVAPS %s, %s", i.v(x), r)
			} else {
				f.op("VADDPS %s, %s, %s", i.v(x), r, r)
			}
		}
		i.treeReduce(f, "VADDPS", acc, x)
		f.op("VMOVSS X%d, 4(DI)", acc)
		f.op("ADDQ $256, SI")
		f.op("ADDQ $8, DI")
	})
	f.end()
}

// merge: the two maxima sit in the lowest lanes of one register, so that one exp serves both.
func merge(f *file, i *isa) {
	const scale, t1, t2, a, b, x, y = 0, 1, 2, 3, 4, 5, 6
	f.function("merge"+i.suffix, "adds the parts of n queries, width values each, to their totals; weights and parts' are maximum and sum",
		join(pointer("total", "part", "weight", "partWeight"), integer("width", "n")), nil)
	f.load("total", "DI", "part", "SI", "weight", "DX", "partWeight", "BX", "width", "R9", "n", "R10")
	f.op("SHRQ $%d, R9", map[int]int{16: 4, 8: 3}[i.lanes()])
	f.label("query")
	f.op("VMOVSS (DX), X%d", a)
	f.op("VMOVSS (BX), X%d", b)
	f.op("VMAXSS X%d, X%d, X%d", a, b, x)
	f.op("VMOVSS X%d, (DX)", x)
	f.op("VUNPCKLPS X%d, X%d, X%d", b, a, scale)
	f.op("VBROADCASTSS X%d, %s", x, i.v(x))
	f.op("VSUBPS %s, %s, %s", i.v(x), i.v(scale), i.v(scale))
	i.exp(f, scale, t1, t2, true)
	f.op("VBROADCASTSS X%d, %s", scale, i.v(a))
	f.op("VPERMILPS $1, X%d, X%d", scale, scale)
	f.op("VBROADCASTSS X%d, %s", scale, i.v(b))
	f.op("VMULSS 4(BX), X%d, X%d", b, x)
	f.op("VMOVSS 4(DX), X%d", y)
	f.op("VFMADD213SS X%d, X%d, X%d", x, a, y)
	f.op("VMOVSS X%d, 4(DX)", y)
	f.op("MOVQ R9, CX")
	f.loop("block", func() {
		f.op("VMULPS (SI), %s, %s", i.v(b), i.v(x))
		f.op("VMOVUPS (DI), %s", i.v(y))
		f.op("VFMADD213PS %s, %s, %s", i.v(x), i.v(a), i.v(y))
		f.op("VMOVUPS %s, (DI)", i.v(y))
		f.op("ADDQ $%d, SI", i.bytes())
		f.op("ADDQ $%d, DI", i.bytes())
	})
	f.op("ADDQ $8, DX")
	f.op("ADDQ $8, BX")
	f.op("DECQ R10")
	f.op("JNZ query")
	f.end()
}
