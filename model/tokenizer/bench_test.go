package tokenizer

import (
	"strings"
	"testing"
)

// ordinary is a few kilobytes of text as people write it.
func ordinary(t testing.TB) string {
	var b strings.Builder
	for _, v := range vectors(t, "smollm2") {
		if v.Category == "english" || v.Category == "long" || v.Category == "code" {
			b.WriteString(v.Text)
			b.WriteString("\n\n")
		}
	}
	return b.String()
}

func BenchmarkEncode(b *testing.B) {
	for _, name := range []string{"smollm2", "gemma3"} {
		b.Run(name, func(b *testing.B) {
			tok, text := load(b, name), strings.Repeat(ordinary(b), 10)
			tokens := 0
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tokens += len(tok.Encode(text, Options{}))
			}
			b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	tok := load(b, "smollm2")
	ids := tok.Encode(ordinary(b), Options{})
	for b.Loop() {
		tok.Decode(ids, false)
	}
	b.ReportMetric(float64(len(ids)*b.N)/b.Elapsed().Seconds(), "tokens/s")
}

func BenchmarkNew(b *testing.B) {
	for _, name := range []string{"smollm2", "gemma3"} {
		b.Run(name, func(b *testing.B) {
			f := open(b, name)
			for b.Loop() {
				if _, err := New(f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
