package tokenizer

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/daisy-llm/daisy/model/token"
)

// space is how SentencePiece writes a space.
const space = "\u2581"

// sentencePiece is SentencePiece's BPE: pairs merge by the score of what they merge into.
type sentencePiece struct {
	ids     map[string]token.ID // of the pieces that text may become
	ranks   []uint32            // by id: higher scores have lower ranks
	longest int                 // bytes of the longest piece
	bytes   [256]token.ID       // byte tokens; none if the vocabulary has none
	unknown token.ID
	prefix  bool
	scratch *sync.Pool // of *merger
}

// pieceText is one text's pairing.
type pieceText struct {
	*sentencePiece
	text string
}

func newSentencePiece(v *vocabulary, scores []float32, prefix bool) (*sentencePiece, error) {
	p := &sentencePiece{
		ids:     make(map[string]token.ID, len(v.texts)),
		ranks:   make([]uint32, len(v.texts)),
		unknown: v.unknown,
		prefix:  prefix,
		scratch: &sync.Pool{New: func() any { return new(merger) }},
	}
	for c := range p.bytes {
		p.bytes[c] = v.text(fmt.Sprintf("<0x%02X>", c))
	}
	for id, text := range v.texts {
		if math.IsNaN(float64(scores[id])) {
			return nil, fmt.Errorf("the score of token %d, %.100q, is not a number", id, text)
		}
		p.ranks[id] = rankOf(scores[id])
		switch v.kinds[id] {
		case kindControl, kindUnknown, kindByte, kindTag:
			// Only the text of special tokens, never merging, leads to these.
			continue
		case kindDefined:
		default:
			v.pieces[id] = strings.ReplaceAll(text, space, " ")
		}
		if text != "" {
			p.ids[text] = token.ID(id)
			p.longest = max(p.longest, len(text))
		}
	}
	return p, nil
}

// rankOf maps scores to integers in the opposite order.
func rankOf(score float32) uint32 {
	if score == 0 {
		score = 0 // -0 and 0 are one score
	}
	bits := math.Float32bits(score)
	if bits>>31 != 0 {
		return bits
	}
	return ^bits &^ (1 << 31)
}

func (p pieceText) union(left, right *symbol) (uint32, token.ID, bool) {
	if right.end-left.start > p.longest {
		return 0, none, false
	}
	id, ok := p.ids[p.text[left.start:right.end]]
	if !ok {
		return 0, none, false
	}
	return p.ranks[id], id, true
}

func (p *sentencePiece) encode(ids []token.ID, text string, first bool) []token.ID {
	text = strings.ReplaceAll(text, " ", space)
	if p.prefix && first {
		text = space + text
	}
	m := p.scratch.Get().(*merger)
	m.reset()
	for start := 0; start < len(text); {
		_, size := utf8.DecodeRuneInString(text[start:])
		id, ok := p.ids[text[start:start+size]]
		if !ok {
			id = none
		}
		m.add(start, start+size, id)
		start += size
	}
	m.run(pieceText{p, text})
	for i := range m.symbols {
		s := &m.symbols[i]
		switch {
		case s.end == 0:
		case s.id != none:
			ids = append(ids, s.id)
		default:
			ids = p.fallBack(ids, text[s.start:s.end])
		}
	}
	if len(m.symbols) < maxKeptSymbols {
		p.scratch.Put(m)
	}
	return ids
}

// fallBack appends the byte tokens of a character that no piece covers, or the unknown token where a byte has none.
func (p *sentencePiece) fallBack(ids []token.ID, char string) []token.ID {
	for i := range len(char) {
		if p.bytes[char[i]] == none {
			if p.unknown == none {
				return ids
			}
			return append(ids, p.unknown)
		}
	}
	for i := range len(char) {
		ids = append(ids, p.bytes[char[i]])
	}
	return ids
}
