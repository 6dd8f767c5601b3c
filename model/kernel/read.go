package kernel

import "encoding/binary"

// Reader is a way to do nothing but read memory: the fastest of them says what a product, which must read its weights, can
// reach at best on this machine. Which one that is differs: CPUs fetch ahead by themselves, more or less well.
type Reader struct {
	Name    string
	streams int // places read in turn
	ahead   int // bytes from the line that is read to the line that is asked for; 0: none is asked for
	isa     isa
}

const (
	readStep  = 512      // bytes of a stream that assembly takes at least
	readPiece = 64 << 10 // bytes of a stream between two moments at which the runtime may stop the goroutine
)

// Readers lists those of the Set, the simplest first.
func (s *Set) Readers() []Reader {
	if s.isa == isaReference {
		return []Reader{{Name: "reference", streams: 1}}
	}
	readers := []Reader{
		{Name: "1 stream", streams: 1},
		{Name: "1 stream, 4 KiB ahead", streams: 1, ahead: 4 << 10},
		{Name: "1 stream, 8 KiB ahead", streams: 1, ahead: 8 << 10},
		{Name: "2 streams", streams: 2},
		{Name: "2 streams, 2 KiB ahead", streams: 2, ahead: 2 << 10},
		{Name: "4 streams", streams: 4},
		{Name: "4 streams, 1 KiB ahead", streams: 4, ahead: 1 << 10},
		{Name: "4 streams, 8 KiB ahead", streams: 4, ahead: 8 << 10},
		{Name: "8 streams", streams: 8},
		{Name: "8 streams, 2 KiB ahead", streams: 8, ahead: 2 << 10},
	}
	for i := range readers {
		readers[i].isa = s.isa
	}
	return readers
}

// Sum reads all of the memory, and is the sum of its little-endian 64-bit words, the last one filled up with zeros: whoever
// reads too little or too much gets another.
func (r Reader) Sum(memory []byte) uint64 {
	stride := len(memory) / r.streams / readStep * readStep
	var sum uint64
	for at := 0; at < stride; at += readPiece {
		sum += r.read(memory[at:], stride, min(readPiece, stride-at))
	}
	return sum + sumWords(memory[stride*r.streams:])
}

// readReference is read in plain Go: n bytes, a multiple of 512, in each of some streams that begin stride bytes apart.
func readReference(memory []byte, streams, stride, n int) uint64 {
	var sum uint64
	for s := range streams {
		sum += sumWords(memory[s*stride:][:n])
	}
	return sum
}

func sumWords(memory []byte) uint64 {
	var a, b, c, d uint64
	for ; len(memory) >= 64; memory = memory[64:] {
		line := (*[64]byte)(memory)
		a += binary.LittleEndian.Uint64(line[0:]) + binary.LittleEndian.Uint64(line[8:])
		b += binary.LittleEndian.Uint64(line[16:]) + binary.LittleEndian.Uint64(line[24:])
		c += binary.LittleEndian.Uint64(line[32:]) + binary.LittleEndian.Uint64(line[40:])
		d += binary.LittleEndian.Uint64(line[48:]) + binary.LittleEndian.Uint64(line[56:])
	}
	for ; len(memory) >= 8; memory = memory[8:] {
		a += binary.LittleEndian.Uint64(memory)
	}
	var last [8]byte
	copy(last[:], memory)
	return a + b + c + d + binary.LittleEndian.Uint64(last[:])
}
