package main

import "fmt"

// floatWeights is a packed format of plain numbers; stepBytes is its record of one column.
type floatWeights struct {
	name      string
	stepBytes int
}

// floatFormats in the order of package kernel.
func floatFormats() []floatWeights { return []floatWeights{{"F32", 64}, {"F16", 32}, {"BF16", 32}} }

// floatProduct: one FMA chain along k for each row and token. With few tokens several groups go together, or the
// chains would be too few to hide an FMA's latency.
func floatProduct(f *file, i *isa, w floatWeights, n int) {
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
func floatGroups(f *file, i *isa, w floatWeights, n, groups int, name string) {
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
