package tokenizer

import (
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model/token"
)

func TestDecoderEmitsWholeCharacters(t *testing.T) {
	tok := tiny(t, tinyBPE())
	bytesOf := func(s string) (ids []token.ID) {
		for i := range len(s) {
			ids = append(ids, token.ID(s[i]))
		}
		return ids
	}
	for _, test := range []struct {
		name   string
		ids    []token.ID
		chunks []string // what each Push gives, then Flush
	}{
		{"ascii", bytesOf("ab"), []string{"a", "b", ""}},
		{"chinese", bytesOf("中"), []string{"", "", "中", ""}},
		{"emoji", bytesOf("😀!"), []string{"", "", "", "😀", "!", ""}},
		{"cut off", bytesOf("\xf0\x9f\x98"), []string{"", "", "", "\ufffd"}},
		{"broken by ascii", bytesOf("\xf0\x9fa"), []string{"", "", "\ufffda", ""}},
		{"broken by another", bytesOf("\xe4\xb8\xe4\xb8\xad"), []string{"", "", "\ufffd", "", "中", ""}},
		{"never a beginning", bytesOf("\x80\xff\xc0"), []string{"\ufffd", "\ufffd", "\ufffd", ""}},
		{"overlong", bytesOf("\xe0\x80\x80"), []string{"", "\ufffd\ufffd", "\ufffd", ""}},
		{"surrogate", bytesOf("\xed\xa0\x80"), []string{"", "\ufffd\ufffd", "\ufffd", ""}},
		{"beyond Unicode", bytesOf("\xf4\x90"), []string{"", "\ufffd\ufffd", ""}},
		{"the replacement character itself", bytesOf("\ufffd"), []string{"", "", "\ufffd", ""}},
		{"control inside", []token.ID{0xe4, 301, 0xb8, 0xad}, []string{"", "", "", "中", ""}},
		{"no such id", []token.ID{'a', -1, 99999, 'b'}, []string{"a", "", "", "b", ""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := tok.NewDecoder(false)
			for i, id := range test.ids {
				if got := d.Push(id); got != test.chunks[i] {
					t.Errorf("Push %d gave %q, want %q", i, got, test.chunks[i])
				}
			}
			if got, want := d.Flush(), test.chunks[len(test.ids)]; got != want {
				t.Errorf("Flush gave %q, want %q", got, want)
			}
			if got := d.Flush(); got != "" {
				t.Errorf("the second Flush gave %q", got)
			}
			if got, want := tok.Decode(test.ids, false), strings.Join(test.chunks, ""); got != want {
				t.Errorf("Decode gave %q, want %q", got, want)
			}
		})
	}
}

func TestControlTokensInText(t *testing.T) {
	tok := tiny(t, tinyBPE())
	ids := []token.ID{300, 259, 302, 301}
	if got := tok.Decode(ids, false); got != "hello<|note|>" {
		t.Errorf("without special tokens: %q", got)
	}
	if got := tok.Decode(ids, true); got != "<|begin|>hello<|note|><|im_end|>" {
		t.Errorf("with them: %q", got)
	}
}

func TestLeadingSpace(t *testing.T) {
	tok := tiny(t, tinySPM())
	hello := token.ID(272) // "▁hello"
	for _, test := range []struct {
		name    string
		decoder *Decoder
		ids     []token.ID
		want    string
	}{
		{"text", tok.NewDecoder(false), []token.ID{hello, hello}, "hello hello"},
		{"text after bos", tok.NewDecoder(false), []token.ID{1, hello, hello}, "hello hello"},
		{"bos shown", tok.NewDecoder(true), []token.ID{1, hello}, "<s> hello"},
		{"two spaces", tok.NewDecoder(false), []token.ID{259, hello}, " hello"},
		{"answer after text", tok.NewDecoderAfter([]token.ID{1, hello}, false), []token.ID{hello}, " hello"},
		{"answer after a turn", tok.NewDecoderAfter([]token.ID{hello, 2}, false), []token.ID{hello}, "hello"},
		{"answer to nothing", tok.NewDecoderAfter(nil, false), []token.ID{hello}, "hello"},
	} {
		var b strings.Builder
		for _, id := range test.ids {
			b.WriteString(test.decoder.Push(id))
		}
		b.WriteString(test.decoder.Flush())
		if b.String() != test.want {
			t.Errorf("%s: %q, want %q", test.name, b.String(), test.want)
		}
	}
	// Byte-level vocabularies add no space, so none is taken away.
	if got := tiny(t, tinyBPE()).Decode([]token.ID{260}, false); got != " hello" {
		t.Errorf("byte-level: %q", got)
	}
}
