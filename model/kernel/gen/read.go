package main

import "fmt"

// readStreams are the numbers of places that a reader takes in turn: what is fastest differs from CPU to CPU.
var readStreams = []int{1, 2, 4, 8}

// reads writes the plain readers, which do nothing but load: they say how fast memory can be read at all.
func reads() {
	s := newStubs()
	f := newFile(s, "read_amd64.s")
	for _, i := range []*isa{avx512, avx2} {
		for _, streams := range readStreams {
			for _, ahead := range []bool{false, true} {
				read(f, i, streams, ahead)
			}
		}
	}
	f.write()
	s.write("read_stubs_amd64.go")
}

// read adds up the 64-bit words of n bytes in each of some streams, which begin stride bytes apart. n is a multiple of 512.
func read(f *file, i *isa, streams int, ahead bool) {
	const accumulators = 8
	pointers := []string{"SI", "DI", "AX", "BX", "R9", "R10", "R11", "R12"}
	name, params := fmt.Sprintf("read%d", streams), join(bytes("memory"), integer("stride", "n"))
	doc := fmt.Sprintf("adds up the 64-bit words of n bytes in each of %d streams", streams)
	if ahead {
		name, doc, params = name+"Ahead", doc+", and asks for the lines that are ahead", join(params, integer("ahead"))
	}
	f.function(name+i.suffix, doc, params, typed("uint64", []string{"sum"}))
	f.load("memory", "SI", "stride", "DX", "n", "CX")
	for s := 1; s < streams; s++ {
		f.op("LEAQ (%s)(DX*1), %s", pointers[s-1], pointers[s])
	}
	for a := range accumulators {
		f.op("VPXOR Y%d, Y%d, Y%d", a, a, a)
	}
	f.op("XORQ R13, R13")
	if ahead {
		f.load("ahead", "R8")
	}
	lines := max(2, 8/streams)
	f.label("line")
	next := 0
	for s := range streams {
		for l := range lines {
			if ahead {
				f.op("PREFETCHT0 %d(%s)(R8*1)", 64*l, pointers[s])
			}
			for at := 0; at < 64; at += i.bytes() {
				a := i.v(next % accumulators)
				f.op("VPADDQ %d(%s)(R13*1), %s, %s", 64*l+at, pointers[s], a, a)
				next++
			}
		}
	}
	f.op("ADDQ $%d, R13", 64*lines)
	if ahead {
		f.op("ADDQ $%d, R8", 64*lines)
	}
	f.op("CMPQ R13, CX")
	f.op("JL line")
	for half := accumulators / 2; half > 0; half /= 2 {
		for a := range half {
			f.op("VPADDQ %s, %s, %s", i.v(a+half), i.v(a), i.v(a))
		}
	}
	if i.wide {
		f.op("VEXTRACTI64X4 $1, Z0, Y1")
		f.op("VPADDQ Y1, Y0, Y0")
	}
	f.op("VEXTRACTI128 $1, Y0, X1")
	f.op("VPADDQ X1, X0, X0")
	f.op("VPSRLDQ $8, X0, X1")
	f.op("VPADDQ X1, X0, X0")
	f.op("VMOVQ X0, %s", f.param("sum"))
	f.end()
}
