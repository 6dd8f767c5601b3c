package tokenizer

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/token"
)

// FuzzRoundTrip: text comes back from its ids, in chunks of whole characters, whatever it is.
func FuzzRoundTrip(f *testing.F) {
	smol, gemma := load(f, "smollm2"), load(f, "gemma3")
	plain := tiny(f, tinySPM())
	for _, v := range vectors(f, "smollm2")[:80] {
		f.Add(v.Text)
	}
	f.Add("\xff\xfe \x80 \u2581 <s></s><0x0A>\ufffd")
	f.Fuzz(func(t *testing.T, text string) {
		for _, tok := range []*Tokenizer{smol, gemma, plain} {
			ids := tok.Encode(text, Options{})
			var raw []byte
			for _, id := range ids {
				if id < 0 || int(id) >= tok.Size() || tok.IsControl(id) {
					t.Fatalf("id %d from %q", id, text)
				}
				raw = append(raw, tok.Piece(id)...)
			}
			want := text
			if tok == smol {
				// It has no tokens for some control characters and for bytes that UTF-8 hardly or never uses.
				if lacks(smol, text) {
					continue
				}
			} else {
				want = strings.ReplaceAll(text, space, " ")
			}
			if tok == plain {
				// A space comes before each stretch of text between user-defined tokens; without those, it is one.
				if strings.Contains(text, "  tab") || strings.Contains(text, "<table>") || text == "" {
					continue
				}
				raw = raw[1:]
			}
			if string(raw) != want {
				t.Fatalf("pieces of %q make %q", text, raw)
			}
			if utf8.ValidString(text) {
				if got := tok.Decode(ids, false); got != want {
					t.Fatalf("%q decodes to %q", text, got)
				}
			}
			checkDecoder(t, tok, ids, true)
			special := tok.Encode(text, Options{AddSpecial: true, ParseSpecial: true})
			checkDecoder(t, tok, special, false)
		}
	})
}

// lacks says whether a byte of text has no token.
func lacks(tok *Tokenizer, text string) bool {
	for i := range len(text) {
		if tok.encoder.(*bpe).bytes[text[i]] == none {
			return true
		}
	}
	return false
}

// FuzzDecode: any ids decode, to the same text at once and one by one.
func FuzzDecode(f *testing.F) {
	b, s := tiny(f, tinyBPE()), tiny(f, tinySPM())
	f.Add([]byte{1, 0, 200, 0, 255, 0}, false)
	f.Add([]byte{0xe4, 0, 0xb8, 0, 0xad, 0, 0x2d, 1}, true)
	f.Fuzz(func(t *testing.T, data []byte, special bool) {
		var ids []token.ID
		for ; len(data) >= 2; data = data[2:] {
			ids = append(ids, token.ID(int16(binary.LittleEndian.Uint16(data))))
		}
		for _, tok := range []*Tokenizer{b, s} {
			if text := tok.Decode(ids, special); !utf8.ValidString(text) {
				t.Fatalf("%v decodes to %q", ids, text)
			}
			checkDecoder(t, tok, ids, special)
		}
	})
}

// FuzzNew: whatever the metadata say, New gives an error or a tokenizer that works.
func FuzzNew(f *testing.F) {
	f.Add(uint8(0), "gpt-2", "a\nb\nab\nĠ\n<|im_end|>", "a b\nĠ a", []byte{1, 1, 1, 1, 3}, uint32(0), "ab ab<|im_end|>")
	f.Add(uint8(1), "", "<unk>\n<s>\n</s>\na\nb\nab\n▁\n<0x0A>", "", []byte{2, 3, 3, 1, 1, 1, 1, 6}, uint32(2), "a b\nab")
	f.Add(uint8(3), "llama-bpe", "\n\n", " ", []byte{255}, uint32(1<<31), "\xff")
	f.Fuzz(func(t *testing.T, family uint8, pre, tokens, merges string, types []byte, id uint32, text string) {
		metadata := []gguf.KeyValue{
			{Key: keyModel, Value: []string{"gpt2", "llama", "bert"}[family%3]},
			{Key: keyPre, Value: pre},
			{Key: keyTokens, Value: strings.Split(tokens, "\n")},
			{Key: keyMerges, Value: strings.Split(merges, "\n")},
			{Key: keyAddBOS, Value: family&4 != 0},
			{Key: keyBOS, Value: id},
			{Key: keyUnknown, Value: id},
		}
		kinds, scores := make([]int32, len(types)), make([]float32, len(types))
		for i, c := range types {
			kinds[i], scores[i] = int32(c%9), float32(int8(c))
			if c == 200 {
				scores[i] = float32(math.Inf(-1))
			}
		}
		metadata = append(metadata, gguf.KeyValue{Key: keyTypes, Value: kinds}, gguf.KeyValue{Key: keyScores, Value: scores})
		tok, err := New(build(t, metadata))
		if err != nil {
			return
		}
		for _, o := range []Options{{}, {AddSpecial: true, ParseSpecial: true}} {
			ids := tok.Encode(text, o)
			if slices.ContainsFunc(ids, func(id token.ID) bool { return id < 0 || int(id) >= tok.Size() }) {
				t.Fatalf("ids %v", ids)
			}
			checkDecoder(t, tok, ids, true)
			checkDecoder(t, tok, ids, false)
		}
	})
}
