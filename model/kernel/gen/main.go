// Command gen writes the assembly of package kernel: run it there, with go generate.
//
// It is a plain text generator with registers assigned by hand, because no Go library for this knows VNNI
// and AMX. Each kernel is written once, over an isa that says how wide a vector is and how a few instructions are
// called; what it must compute is the reference of the same name in package kernel, operation by operation.
//
// Go's operand order is Intel's reversed: VFMADD231PS a, b, c is c += a*b, VSUBPS a, b, c is c = b - a.
package main

import (
	"fmt"
	"os"
)

func main() {
	stubs := newStubs()
	for _, i := range []*isa{avx512, avx2} {
		f := newFile(stubs, "vector_"+i.file+"_amd64.s")
		f.constants(i)
		reductions(f, i)
		norms(f, i)
		elementwise(f, i)
		rotations(f, i)
		conversions(f, i)
		quantize(f, i)
		attention(f, i)
		f.write()
	}
	for _, i := range []*isa{avx512, avx2, avxvnni} {
		f := newFile(stubs, "product_"+i.file+"_amd64.s")
		products(f, i)
		f.write()
	}
	f := newFile(stubs, "product_amx_amd64.s")
	tiles(f)
	f.write()
	f = newFile(stubs, "pause_amd64.s")
	f.function("pauseAMD64", "pauses for some tens of nanoseconds, to the benefit of the core's other thread", nil, nil)
	f.op("PAUSE")
	f.ret()
	f.write()
	stubs.write("stubs_amd64.go")
	reads()
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}
