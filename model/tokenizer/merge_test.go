package tokenizer

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model/token"
)

// counting counts what a merger asks.
type counting struct {
	pairing
	calls *int
}

func (c counting) union(left, right *symbol) (uint32, token.ID, bool) {
	*c.calls++
	return c.pairing.union(left, right)
}

func TestMergingTakesNearlyLinearTime(t *testing.T) {
	smol, gemma := load(t, "smollm2").encoder.(*bpe), load(t, "gemma3").encoder.(*sentencePiece)
	for _, unit := range []string{"a", "=", "ab", "the", "\u2581", "x\u2581", "\n", "中", "0"} {
		var calls [2][2]int
		for i, n := range []int{20_000, 200_000} {
			text := strings.Repeat(unit, n/len(unit))
			for j, family := range []struct {
				pairing
				id func(string) token.ID
			}{
				{smol, func(s string) token.ID { return smol.bytes[s[0]] }},
				{pieceText{gemma, text}, func(s string) token.ID { return gemma.ids[s] }},
			} {
				var m merger
				for at := 0; at < len(text); {
					size := 1
					if j == 1 {
						size = len(string([]rune(text[at:min(at+4, len(text))])[0]))
					}
					m.add(at, at+size, family.id(text[at:at+size]))
					at += size
				}
				m.run(counting{family.pairing, &calls[i][j]})
				if cap(m.queue) > 4*n {
					t.Errorf("%q: %d candidates for %d bytes", unit, cap(m.queue), n)
				}
			}
		}
		for j, name := range []string{"bpe", "sentencepiece"} {
			if small, large := calls[0][j], calls[1][j]; large > 11*small+100 || large > 600_000 {
				t.Errorf("%s: %d questions for 20 kB of %q, %d for 200 kB", name, small, unit, large)
			}
		}
	}
}

// table is a pairing of letters, for comparison with the plain algorithm.
type table map[[2]token.ID]union

func (p table) union(left, right *symbol) (uint32, token.ID, bool) {
	u, ok := p[[2]token.ID{left.id, right.id}]
	return u.rank, u.id, ok
}

// plain merges as the definition says: again and again the best pair of all, the leftmost among equals.
func plain(p table, ids []token.ID) []token.ID {
	ids = slices.Clone(ids)
	for {
		best, at := union{rank: ^uint32(0)}, -1
		for i := 1; i < len(ids); i++ {
			if u, ok := p[[2]token.ID{ids[i-1], ids[i]}]; ok && u.rank < best.rank {
				best, at = u, i-1
			}
		}
		if at < 0 {
			return ids
		}
		ids[at] = best.id
		ids = slices.Delete(ids, at+1, at+2)
	}
}

func TestMergingAgreesWithItsDefinition(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		p := table{}
		for range random.IntN(20) {
			// Few ids and ranks, so that pairs are equal, overlap and make each other.
			p[[2]token.ID{token.ID(random.IntN(6)), token.ID(random.IntN(6))}] = union{uint32(random.IntN(5)), token.ID(random.IntN(6))}
		}
		var m merger
		ids := make([]token.ID, random.IntN(30))
		for i := range ids {
			ids[i] = token.ID(random.IntN(4))
			m.add(i, i+1, ids[i])
		}
		m.run(p)
		var got []token.ID
		for _, s := range m.symbols {
			if s.end != 0 {
				got = append(got, s.id)
			}
		}
		if want := plain(p, ids); !slices.Equal(got, want) {
			t.Fatalf("%v by %v: %v, want %v", ids, p, got, want)
		}
	}
}
