//go:build !purego

package kernel

// read is readReference with the Reader's instructions. It is no leaf, so it checks the stack when it begins.
//
//go:noinline
func (r Reader) read(memory []byte, stride, n int) uint64 {
	_ = memory[:(r.streams-1)*stride+n]
	type key struct {
		isa     isa
		streams int
		ahead   bool
	}
	isa := r.isa
	if isa == isaAVXVNNI {
		isa = isaAVX2
	}
	m := at(memory)
	switch (key{isa, r.streams, r.ahead > 0}) {
	case key{isaAVX512, 1, false}:
		return read1AVX512(m, stride, n)
	case key{isaAVX512, 1, true}:
		return read1AheadAVX512(m, stride, n, r.ahead)
	case key{isaAVX512, 2, false}:
		return read2AVX512(m, stride, n)
	case key{isaAVX512, 2, true}:
		return read2AheadAVX512(m, stride, n, r.ahead)
	case key{isaAVX512, 4, false}:
		return read4AVX512(m, stride, n)
	case key{isaAVX512, 4, true}:
		return read4AheadAVX512(m, stride, n, r.ahead)
	case key{isaAVX512, 8, false}:
		return read8AVX512(m, stride, n)
	case key{isaAVX512, 8, true}:
		return read8AheadAVX512(m, stride, n, r.ahead)
	case key{isaAVX2, 1, false}:
		return read1AVX2(m, stride, n)
	case key{isaAVX2, 1, true}:
		return read1AheadAVX2(m, stride, n, r.ahead)
	case key{isaAVX2, 2, false}:
		return read2AVX2(m, stride, n)
	case key{isaAVX2, 2, true}:
		return read2AheadAVX2(m, stride, n, r.ahead)
	case key{isaAVX2, 4, false}:
		return read4AVX2(m, stride, n)
	case key{isaAVX2, 4, true}:
		return read4AheadAVX2(m, stride, n, r.ahead)
	case key{isaAVX2, 8, false}:
		return read8AVX2(m, stride, n)
	case key{isaAVX2, 8, true}:
		return read8AheadAVX2(m, stride, n, r.ahead)
	default:
		return readReference(memory, r.streams, stride, n)
	}
}
