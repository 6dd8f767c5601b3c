package tokenizer

import (
	"strings"
	"unicode/utf8"

	"github.com/daisy-llm/daisy/model/token"
)

// Decode gives the text of a whole sequence. Control tokens are written out by name if special is set and left out
// otherwise; ids that do not exist are left out. Bytes that make no character become U+FFFD, one for each of the longest
// beginnings of a character that they hold. A space that SentencePiece put before the text is taken away again.
func (t *Tokenizer) Decode(ids []token.ID, special bool) string {
	d := t.NewDecoder(special)
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(d.Push(id))
	}
	b.WriteString(d.Flush())
	return b.String()
}

// Decoder is Decode for ids that come one by one. It serves one sequence, from one goroutine.
type Decoder struct {
	tokenizer *Tokenizer
	special   bool
	trim      bool // the next text loses one leading space
	rest      []byte
}

// NewDecoder decodes a sequence from its beginning: all that Push and then Flush give is what Decode gives.
func (t *Tokenizer) NewDecoder(special bool) *Decoder {
	return &Decoder{tokenizer: t, special: special, trim: t.spacePrefix}
}

// NewDecoderAfter decodes what a model adds to prompt. After text, a leading space belongs to the answer; after a special
// token, or without a prompt, it is the one that Encode would have put there.
func (t *Tokenizer) NewDecoderAfter(prompt []token.ID, special bool) *Decoder {
	d := t.NewDecoder(special)
	if n := len(prompt); n > 0 && t.valid(prompt[n-1]) {
		k := t.kinds[prompt[n-1]]
		d.trim = d.trim && (k.hidden() || k == kindDefined)
	}
	return d
}

// Push gives the text that id completes: whole characters only, often none.
func (d *Decoder) Push(id token.ID) string {
	t := d.tokenizer
	if !t.valid(id) {
		return ""
	}
	piece := t.pieces[id]
	if t.kinds[id].hidden() {
		if !d.special {
			return ""
		}
	} else if d.trim && piece != "" {
		piece = strings.TrimPrefix(piece, " ")
	}
	d.trim = d.trim && t.pieces[id] == ""
	if len(d.rest) == 0 && utf8.ValidString(piece) {
		return piece
	}
	d.rest = append(d.rest, piece...)
	var b strings.Builder
	d.rest = d.rest[writeWhole(&b, d.rest):]
	return b.String()
}

// Flush gives what is left at the end of the sequence, which is the beginning of a character: U+FFFD or nothing.
func (d *Decoder) Flush() string {
	if len(d.rest) == 0 {
		return ""
	}
	d.rest = nil
	return string(utf8.RuneError)
}

// writeWhole writes b up to, and gives the length before, the last bytes if more may make a character of them. Broken
// characters become U+FFFD by the practice that Unicode recommends (chapter 3.9, substitution of maximal subparts).
func writeWhole(w *strings.Builder, b []byte) int {
	for i := 0; i < len(b); {
		if r, size := utf8.DecodeRune(b[i:]); r != utf8.RuneError || size > 1 {
			w.Write(b[i : i+size])
			i += size
			continue
		}
		size, more := subpart(b[i:])
		if more {
			return i
		}
		w.WriteRune(utf8.RuneError)
		i += size
	}
	return len(b)
}

// subpart measures the longest beginning of a character in b, which holds no whole one; at least one byte. more says
// that b ends before the character could.
func subpart(b []byte) (size int, more bool) {
	need, low, high := 0, byte(0x80), byte(0xBF)
	switch c := b[0]; {
	case c >= 0xC2 && c <= 0xDF:
		need = 1
	case c == 0xE0:
		need, low = 2, 0xA0
	case c == 0xED:
		need, high = 2, 0x9F // no surrogates
	case c >= 0xE1 && c <= 0xEF:
		need = 2
	case c == 0xF0:
		need, low = 3, 0x90
	case c == 0xF4:
		need, high = 3, 0x8F // up to U+10FFFF
	case c >= 0xF1 && c <= 0xF3:
		need = 3
	}
	for size = 1; size <= need; size++ {
		if size == len(b) {
			return size, true
		}
		if b[size] < low || b[size] > high {
			break
		}
		low, high = 0x80, 0xBF
	}
	return size, false
}
