package tokenizer

import (
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/daisy-llm/daisy/model/token"
)

// bpe is byte-level byte pair encoding.
type bpe struct {
	rule    *splitter
	bytes   [256]token.ID         // the token of each byte; none if the vocabulary has none
	merges  map[[2]token.ID]union // by left and right
	whole   map[string]token.ID   // words that are tokens as they stand, where the model ignores merges for them
	broken  []token.ID            // what stands for a byte without a token that is not UTF-8: U+FFFD, if that has tokens
	scratch *sync.Pool            // of *bpeScratch
}

// union is what a pair merges into, and when: lower ranks first.
type union struct {
	rank uint32
	id   token.ID
}

type bpeScratch struct {
	merger merger
	split  splitScratch
}

// byteAlphabet gives the character that stands for each byte in the text of byte-level tokens: printable characters stand
// for themselves, the others, in order, for those from U+0100 on (GPT-2's bytes_to_unicode).
func byteAlphabet() (alphabet [256]rune) {
	next := rune(256)
	for b := range alphabet {
		if b >= '!' && b <= '~' || b >= 0xA1 && b != 0xAD {
			alphabet[b] = rune(b)
			continue
		}
		alphabet[b] = next
		next++
	}
	return alphabet
}

// byteText turns the text of a byte-level token into the bytes it stands for; a character outside the alphabet stands for
// itself, and plain is then false.
func byteText(text string, byteOf map[rune]byte) (raw string, plain bool) {
	b := make([]byte, 0, len(text))
	plain = true
	for i, r := range text {
		if c, ok := byteOf[r]; ok {
			b = append(b, c)
			continue
		}
		plain = false
		_, size := utf8.DecodeRuneInString(text[i:])
		b = append(b, text[i:i+size]...)
	}
	return string(b), plain
}

// newBPE reads the merges, each "left right", against the texts of the vocabulary.
func newBPE(v *vocabulary, rule *splitter, merges []string, ignoreMerges bool) (*bpe, error) {
	b := &bpe{
		rule:    rule,
		merges:  make(map[[2]token.ID]union, len(merges)),
		scratch: &sync.Pool{New: func() any { return new(bpeScratch) }},
	}
	alphabet := byteAlphabet()
	byteOf := make(map[rune]byte, len(alphabet))
	for c, r := range alphabet {
		byteOf[r] = byte(c)
		b.bytes[c] = v.text(string(r))
	}
	b.broken = replacement(&b.bytes)
	for i, merge := range merges {
		// A space inside the byte alphabet is another character, so that the only one is the separator. It is looked for
		// from the second byte on because some vocabularies hold a literal space.
		at := -1
		if len(merge) > 1 {
			at = strings.IndexByte(merge[1:], ' ') + 1
		}
		if at <= 0 || at == len(merge)-1 {
			return nil, fmt.Errorf("merge %d, %.100q, is not two tokens separated by a space", i, merge)
		}
		left, right := merge[:at], merge[at+1:]
		pair := [2]token.ID{v.text(left), v.text(right)}
		id := v.text(left + right)
		if pair[0] == none || pair[1] == none || id == none {
			return nil, fmt.Errorf("merge %d, %.100q, is of or into a token that the vocabulary does not have", i, merge)
		}
		if _, ok := b.merges[pair]; !ok {
			b.merges[pair] = union{rank: uint32(i), id: id}
		}
	}
	if ignoreMerges {
		b.whole = make(map[string]token.ID, len(v.texts))
	}
	for id, text := range v.texts {
		if v.kinds[id] != kindNormal {
			continue
		}
		raw, plain := byteText(text, byteOf)
		v.pieces[id] = raw
		if ignoreMerges && plain && raw != "" {
			b.whole[raw] = token.ID(id)
		}
	}
	return b, nil
}

// replacement gives the tokens of the replacement character, or none if any is missing.
func replacement(bytes *[256]token.ID) []token.ID {
	var ids []token.ID
	for _, c := range []byte(string(utf8.RuneError)) {
		if bytes[c] == none {
			return nil
		}
		ids = append(ids, bytes[c])
	}
	return ids
}

func (b *bpe) union(left, right *symbol) (uint32, token.ID, bool) {
	u, ok := b.merges[[2]token.ID{left.id, right.id}]
	return u.rank, u.id, ok
}

func (b *bpe) encode(ids []token.ID, text string, _ bool) []token.ID {
	s := b.scratch.Get().(*bpeScratch)
	b.rule.split(&s.split, text, func(word string) {
		ids = b.encodeWord(&s.merger, ids, word)
	})
	if len(s.merger.symbols) < maxKeptSymbols {
		b.scratch.Put(s)
	}
	return ids
}

// maxKeptSymbols bounds the memory that a pool keeps: after a word or text of more symbols it is let go.
const maxKeptSymbols = 1 << 14

func (b *bpe) encodeWord(m *merger, ids []token.ID, word string) []token.ID {
	if id, ok := b.whole[word]; ok {
		return append(ids, id)
	}
	m.reset()
	for i := range len(word) {
		if id := b.bytes[word[i]]; id != none {
			m.add(i, i+1, id)
			continue
		}
		// Most vocabularies lack only bytes that UTF-8 never uses. Any other is lost, as in every engine: U+0016 in SmolLM2's.
		if !utf8.ValidString(word) {
			for _, id := range b.broken {
				m.add(i, i+1, id)
			}
		}
	}
	m.run(b)
	for i := range m.symbols {
		if m.symbols[i].end != 0 {
			ids = append(ids, m.symbols[i].id)
		}
	}
	return ids
}
