package kvcache

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/daisy-llm/daisy/model/kernel"
)

// TestCopy: in pieces of any size, what is read from one sequence and written to another is there as it was, in every slot, and
// nothing else is touched.
func TestCopy(t *testing.T) {
	set := kernel.Sets()[0]
	for _, typ := range []Type{F16, F32} {
		for _, dim := range []int{6, 16, 64} {
			t.Run(fmt.Sprint(typ, dim), func(t *testing.T) {
				r := rand.New(rand.NewPCG(1, uint64(dim)))
				p, err := NewPool(Config{Type: typ, KVHeads: 3, HeadDim: dim, Bytes: 40 * Bytes(typ, 3, dim, 1)})
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				const length = 4*PagePositions + 19
				from, to := p.NewSequence(2), p.NewSequence(2)
				if err := from.Reserve(0, length); err != nil {
					t.Fatal(err)
				}
				row := make([]float32, 2*dim)
				for position := range length {
					for h := range 3 {
						for i := range row {
							row[i] = r.Float32()
						}
						set.Store(p.Shape(), from.Pages(1)[position/PagePositions], h, position, row[:dim], row[dim:])
					}
				}
				from.Advance(length)
				for first := 0; first < length; {
					n := min(1+r.IntN(2*PagePositions), length-first)
					words := make([]float32, n*from.Words())
					if err := from.Read(words, 1, first); err != nil {
						t.Fatal(err)
					}
					if err := to.Write(1, first, words); err != nil {
						t.Fatal(err)
					}
					first += n
				}
				if to.LenIn(0, 1) != 0 || to.LenIn(1, 2) != length {
					t.Errorf("the layers have %d and %d positions", to.LenIn(0, 1), to.LenIn(1, 2))
				}
				for i, page := range to.Pages(1) {
					p.Shape().Slots(0, min(PagePositions, length-i*PagePositions), func(at, n int) {
						if !bytes.Equal(page[at:at+n], from.Pages(1)[i][at:at+n]) {
							t.Fatalf("page %d has other bytes at %d", i, at)
						}
					})
				}
			})
		}
	}
}

func TestCopyRefuses(t *testing.T) {
	p := newPool(t, 3)
	s := p.NewSequence(1)
	words := func(positions int) []float32 { return make([]float32, positions*s.Words()) }
	if err := s.Write(0, 0, words(70)); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"reading beyond the end":           s.Read(words(2), 0, 69),
		"reading before the first":         s.Read(words(2), 0, -1),
		"reading beyond any end":           s.Read(words(0), 0, 71),
		"reading part of a position":       s.Read(words(2)[1:], 0, 0),
		"writing what is there":            s.Write(0, 69, words(2)),
		"writing behind a gap":             s.Write(0, 71, words(2)),
		"writing part of a position":       s.Write(0, 70, words(2)[1:]),
		"writing more than there is room":  s.Write(0, 70, words(3*PagePositions)),
		"writing before the first of them": s.Write(0, -1, words(1)),
	} {
		if err == nil {
			t.Errorf("%s is not refused", name)
		}
	}
	if err := s.Write(0, 70, words(3*PagePositions)); !errors.Is(err, ErrFull) || s.Len() != 70 || p.Used() != 2*int64(p.Shape().Bytes()) {
		t.Errorf("a full cache: %v, %d positions are there, %d bytes are in use", err, s.Len(), p.Used())
	}
	odd, err := NewPool(Config{Type: F16, KVHeads: 1, HeadDim: 1, Bytes: Bytes(F16, 1, 1, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer odd.Close()
	if err := odd.NewSequence(1).Read(nil, 0, 0); err == nil {
		t.Error("positions that are no whole words are read")
	}
}
