package tokenizer

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/daisy-llm/daisy/model/gguf"
)

// build makes a file in memory.
func build(t testing.TB, metadata []gguf.KeyValue) *gguf.File {
	t.Helper()
	var b bytes.Buffer
	if err := gguf.Write(&b, metadata, nil); err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Parse(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// with gives metadata with some keys set anew; a nil value removes the key.
func with(metadata []gguf.KeyValue, changes ...gguf.KeyValue) []gguf.KeyValue {
	metadata = slices.Clone(metadata)
	for _, c := range changes {
		metadata = slices.DeleteFunc(metadata, func(kv gguf.KeyValue) bool { return kv.Key == c.Key })
		if c.Value != nil {
			metadata = append(metadata, c)
		}
	}
	return metadata
}

// tinyBPE has all bytes (ids 0 to 255, by byte), a few words, and special tokens from 300 on.
func tinyBPE() []gguf.KeyValue {
	tokens, types := make([]string, 304), make([]int32, 304)
	for c, r := range byteAlphabet() {
		tokens[c] = string(r)
	}
	for i, text := range []string{"he", "ll", "hell", "hello", "Ġhello", "Ġw"} {
		tokens[256+i] = text
	}
	for i := range types {
		types[i] = int32(kindNormal)
		if tokens[i] == "" {
			tokens[i], types[i] = fmt.Sprintf("<unused%d>", i), int32(kindUnused)
		}
	}
	for i, text := range []string{"<|begin|>", "<|im_end|>", "<|note|>", "<|note|>s"} {
		tokens[300+i], types[300+i] = text, int32(kindControl)
	}
	types[302], types[303] = int32(kindDefined), int32(kindDefined)
	return []gguf.KeyValue{
		{Key: keyModel, Value: "gpt2"},
		{Key: keyPre, Value: "gpt-2"},
		{Key: keyTokens, Value: tokens},
		{Key: keyTypes, Value: types},
		{Key: keyMerges, Value: []string{"h e", "l l", "he ll", "hell o", "Ġ hello", "Ġ w"}},
		{Key: keyBOS, Value: uint32(300)},
		{Key: keyEOS, Value: uint32(301)},
	}
}

// tinySPM has <unk>, <s>, </s>, the bytes from 3 on, letters and a few pieces from 259 on, all with SentencePiece's usual
// score of minus their rank.
func tinySPM() []gguf.KeyValue {
	tokens, types := []string{"<unk>", "<s>", "</s>"}, []int32{int32(kindUnknown), int32(kindControl), int32(kindControl)}
	for c := range 256 {
		tokens, types = append(tokens, fmt.Sprintf("<0x%02X>", c)), append(types, int32(kindByte))
	}
	for _, text := range []string{space, "h", "e", "l", "o", "w", "s", "<", ">", "he", "ll", "llo", "hello", space + "hello", space + "h", "\u00e9", "s>", "中"} {
		tokens, types = append(tokens, text), append(types, int32(kindNormal))
	}
	tokens, types = append(tokens, "  tab", "<table>"), append(types, int32(kindDefined), int32(kindDefined))
	scores := make([]float32, len(tokens))
	for i := 259; i < len(tokens); i++ {
		scores[i] = float32(-i)
	}
	return []gguf.KeyValue{
		{Key: keyModel, Value: "llama"},
		{Key: keyTokens, Value: tokens},
		{Key: keyTypes, Value: types},
		{Key: keyScores, Value: scores},
	}
}

func tiny(t testing.TB, metadata []gguf.KeyValue) *Tokenizer {
	t.Helper()
	tok, err := New(build(t, metadata))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}
