package tokenizer

import (
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/token"
)

func TestRefusals(t *testing.T) {
	b, s := tinyBPE(), tinySPM()
	tokens := b[2].Value.([]string)
	changed := func(i int, text string) []string {
		list := slices.Clone(tokens)
		list[i] = text
		return list
	}
	kv := func(key string, value any) gguf.KeyValue { return gguf.KeyValue{Key: key, Value: value} }
	scores := slices.Clone(s[3].Value.([]float32))
	scores[260] = float32(math.NaN())
	types := slices.Clone(s[2].Value.([]int32))
	types[261] = int32(kindByte)
	for _, test := range []struct {
		name     string
		metadata []gguf.KeyValue
		says     string
	}{
		{"nothing", nil, "tokenizer.ggml.model"},
		{"another family", with(b, kv(keyModel, "bert")), `"bert"`},
		{"model of another type", with(b, kv(keyModel, uint32(1))), "tokenizer.ggml.model"},
		{"no rule", with(b, kv(keyPre, nil)), "tokenizer.ggml.pre"},
		{"unknown rule", with(b, kv(keyPre, "my-rule")), `"my-rule"`},
		{"no tokens", with(b, kv(keyTokens, nil)), "tokenizer.ggml.tokens"},
		{"empty tokens", with(b, kv(keyTokens, []string{})), "0 entries"},
		{"tokens of another type", with(b, kv(keyTokens, []int32{1})), "tokenizer.ggml.tokens"},
		{"duplicate", with(b, kv(keyTokens, changed(270, "hello"))), "259 and 270"},
		{"long token", with(b, kv(keyTokens, changed(270, strings.Repeat("x", maxTokenBytes+1)))), "token 270"},
		{"long special token", with(b, kv(keyTokens, changed(300, strings.Repeat("x", maxSpecialBytes+1)))), "token 300"},
		{"few types", with(b, kv(keyTypes, []int32{1})), "1 entries for 304"},
		{"types of another type", with(b, kv(keyTypes, []string{"normal"})), "tokenizer.ggml.token_type"},
		{"byte without a byte's name", with(s, kv(keyTypes, types)), "token 261"},
		{"no merges", with(b, kv(keyMerges, nil)), "tokenizer.ggml.merges"},
		{"merge of nothing", with(b, kv(keyMerges, []string{"he"})), "merge 0"},
		{"merge of one", with(b, kv(keyMerges, []string{"h "})), "merge 0"},
		{"empty merge", with(b, kv(keyMerges, []string{"h e", ""})), "merge 1"},
		{"merge of unknown", with(b, kv(keyMerges, []string{"h e", "he xyz"})), "merge 1"},
		{"merge into unknown", with(b, kv(keyMerges, []string{"e h"})), "merge 0"},
		{"bos out of range", with(b, kv(keyBOS, uint32(304))), "tokenizer.ggml.bos_token_id"},
		{"eos of another type", with(b, kv(keyEOS, "end")), "tokenizer.ggml.eos_token_id"},
		{"eot negative", with(b, kv(keyEOT, int32(-5))), "tokenizer.ggml.eot_token_id"},
		{"unknown out of range", with(b, kv(keyUnknown, uint64(math.MaxUint64))), "tokenizer.ggml.unknown_token_id"},
		{"bos wanted, not there", with(b, kv(keyBOS, nil), kv(keyAddBOS, true)), "tokenizer.ggml.add_bos_token"},
		{"eos wanted, not there", with(b, kv(keyEOS, int32(-1)), kv(keyAddEOS, true)), "tokenizer.ggml.add_eos_token"},
		{"add_bos of another type", with(b, kv(keyAddBOS, uint32(1))), "tokenizer.ggml.add_bos_token"},
		{"prefix of another type", with(s, kv(keySpacePrefix, "yes")), "tokenizer.ggml.add_space_prefix"},
		{"no scores", with(s, kv(keyScores, nil)), "tokenizer.ggml.scores"},
		{"few scores", with(s, kv(keyScores, []float32{1})), "1 entries for"},
		{"score not a number", with(s, kv(keyScores, scores)), "token 260"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := New(build(t, test.metadata))
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error is %v, want one about %s", err, test.says)
			}
		})
	}
}

func TestByteLevel(t *testing.T) {
	tok := tiny(t, tinyBPE())
	for _, test := range []struct {
		text string
		o    Options
		want []token.ID
	}{
		{"hello", Options{}, []token.ID{259}},
		{"hello hello world", Options{}, []token.ID{259, 260, 261, 'o', 'r', 'l', 'd'}},
		{"helloo", Options{}, []token.ID{259, 'o'}},
		{"", Options{AddSpecial: true}, []token.ID{}},
		{"<|begin|>", Options{ParseSpecial: true}, []token.ID{300}},
		{"a<|note|>b", Options{}, []token.ID{'a', 302, 'b'}},
		{"<|note|>s", Options{}, []token.ID{303}},
		{"<|note|><|im_end|>", Options{ParseSpecial: true}, []token.ID{302, 301}},
		{"\xff\xfe\u00e9\xc3", Options{}, []token.ID{0xff, 0xfe, 0xc3, 0xa9, 0xc3}},
		{"\x00\u00ad", Options{}, []token.ID{0, 0xc2, 0xad}},
	} {
		if got := tok.Encode(test.text, test.o); !slices.Equal(got, test.want) {
			t.Errorf("Encode(%q, %+v) = %v, want %v", test.text, test.o, got, test.want)
		}
	}
	if got := len(tok.Encode("<|begin|>", Options{})); got != len("<|begin|>") {
		t.Errorf("a control token in a user's text became %d tokens", got)
	}
}

func TestAddedTokens(t *testing.T) {
	add := func(key string, value any) gguf.KeyValue { return gguf.KeyValue{Key: key, Value: value} }
	for _, test := range []struct {
		name     string
		metadata []gguf.KeyValue
		want     []token.ID
	}{
		{"bpe as it is", tinyBPE(), []token.ID{259}},
		{"bpe with both", with(tinyBPE(), add(keyAddBOS, true), add(keyAddEOS, true)), []token.ID{300, 259, 301}},
		{"llama-bpe wants bos", with(tinyBPE(), add(keyPre, "llama-bpe")), []token.ID{300, 259}},
		{"llama-bpe told otherwise", with(tinyBPE(), add(keyPre, "llama-bpe"), add(keyAddBOS, false)), []token.ID{259}},
		{"llama-bpe without bos", with(tinyBPE(), add(keyPre, "llama-bpe"), add(keyBOS, nil)), []token.ID{259}},
		{"sentencepiece wants bos", tinySPM(), []token.ID{1, 272}},
		{"sentencepiece without prefix", with(tinySPM(), add(keySpacePrefix, false), add(keyAddEOS, true)), []token.ID{1, 271, 2}},
	} {
		if got := tiny(t, test.metadata).Encode("hello", Options{AddSpecial: true}); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestWordsThatIgnoreMerges(t *testing.T) {
	// Without the merge into it, only its being a token makes the word one.
	metadata := with(tinyBPE(), gguf.KeyValue{Key: keyMerges, Value: []string{"h e"}}, gguf.KeyValue{Key: keyPre, Value: "llama-bpe"})
	if got := tiny(t, metadata).Encode("hello", Options{}); !slices.Equal(got, []token.ID{259}) {
		t.Errorf("llama-bpe: %v", got)
	}
	metadata = with(metadata, gguf.KeyValue{Key: keyPre, Value: "qwen2"})
	if got := tiny(t, metadata).Encode("hello", Options{}); !slices.Equal(got, []token.ID{256, 'l', 'l', 'o'}) {
		t.Errorf("qwen2: %v", got)
	}
}

func TestMissingBytes(t *testing.T) {
	tokens := slices.Clone(tinyBPE()[2].Value.([]string))
	tokens['z'] = "zz"
	metadata := with(tinyBPE(), gguf.KeyValue{Key: keyTokens, Value: tokens})
	if got := tiny(t, metadata).Encode("azb", Options{}); !slices.Equal(got, []token.ID{'a', 'b'}) {
		t.Errorf("a letter: %v", got)
	}
	tokens['z'], tokens[0xff] = "z", "zz"
	if got := tiny(t, metadata).Encode("a\xffb", Options{}); !slices.Equal(got, []token.ID{'a', 0xef, 0xbf, 0xbd, 'b'}) {
		t.Errorf("a byte that is not UTF-8: %v", got)
	}
	tokens[0xbf] = "yy"
	if got := tiny(t, metadata).Encode("a\xffb", Options{}); !slices.Equal(got, []token.ID{'a', 'b'}) {
		t.Errorf("without a replacement character: %v", got)
	}

	tokens = slices.Clone(tinySPM()[1].Value.([]string))
	types := slices.Clone(tinySPM()[2].Value.([]int32))
	tokens[3+0xc3], types[3+0xc3] = "gone", 1
	metadata = with(tinySPM(), gguf.KeyValue{Key: keyTokens, Value: tokens}, gguf.KeyValue{Key: keyTypes, Value: types})
	if got := tiny(t, metadata).Encode("h\u00e8", Options{}); !slices.Equal(got, []token.ID{273, 0}) {
		t.Errorf("sentencepiece: %v", got)
	}
	metadata = with(metadata, gguf.KeyValue{Key: keyUnknown, Value: uint32(2)})
	if got := tiny(t, metadata).Encode("\u00e8", Options{}); slices.Contains(got, 2) {
		t.Errorf("an unknown token that ends generations: %v", got)
	}
}

func TestSentencePiece(t *testing.T) {
	tok := tiny(t, tinySPM())
	for _, test := range []struct {
		text string
		o    Options
		want []token.ID
	}{
		{"hello", Options{}, []token.ID{272}},
		{" hello", Options{}, []token.ID{259, 272}},
		{"\u2581hello", Options{}, []token.ID{259, 272}},
		{"h中é", Options{}, []token.ID{273, 276, 274}},
		{"o\u00e8", Options{}, []token.ID{259, 263, 3 + 0xc3, 3 + 0xa8}},
		{"o\xff", Options{}, []token.ID{259, 263, 3 + 0xff}},
		{"<table>hello", Options{}, []token.ID{278, 272}},
		{"o  tabo", Options{}, []token.ID{259, 263, 277, 259, 263}},
		{"<s>", Options{ParseSpecial: true}, []token.ID{1}},
		// "<" and "s>" would make "<s>", if control tokens could come from merging.
		{"<s>", Options{}, []token.ID{259, 266, 275}},
		{"<0x41>", Options{}, nil},
	} {
		got := tok.Encode(test.text, test.o)
		if test.want != nil && !slices.Equal(got, test.want) {
			t.Errorf("Encode(%q, %+v) = %v, want %v", test.text, test.o, got, test.want)
		}
		if test.want == nil && slices.Contains(got, 3+0x41) {
			t.Errorf("Encode(%q) = %v, with a byte token that was written out", test.text, got)
		}
	}
}

func TestEndsOfGeneration(t *testing.T) {
	set := func(key string, value any) gguf.KeyValue { return gguf.KeyValue{Key: key, Value: value} }
	named := func(names ...string) []gguf.KeyValue {
		tokens := slices.Clone(tinyBPE()[2].Value.([]string))
		copy(tokens[270:], names)
		return with(tinyBPE(), set(keyTokens, tokens), set(keyEOT, uint32(303)), set(keyEOM, uint32(290)))
	}
	for _, test := range []struct {
		name     string
		metadata []gguf.KeyValue
		ends     []token.ID
	}{
		{"by id", named(), []token.ID{290, 301, 303}},
		{"by name, though called unused", named("<|eot_id|>", "<end_of_turn>", "<|fim_prefix|>"), []token.ID{270, 271, 290, 301, 303}},
		{"harmony", named("<|return|>", "<|call|>", "<|end|>"), []token.ID{270, 271, 290, 301, 303}},
		{"end without channels", named("<|end|>"), []token.ID{270, 290, 301, 303}},
		{"sentencepiece by default", tinySPM(), []token.ID{2}},
	} {
		tok := tiny(t, test.metadata)
		var got []token.ID
		for id := token.ID(-2); int(id) < tok.Size()+2; id++ {
			if tok.IsEndOfGeneration(id) {
				got = append(got, id)
			}
		}
		if !slices.Equal(got, test.ends) {
			t.Errorf("%s: %v, want %v", test.name, got, test.ends)
		}
	}
	if tok := tiny(t, named("<|fim_prefix|>")); !tok.IsControl(270) {
		t.Error("<|fim_prefix|> is no control token")
	}
}

// In Gemma's vocabulary </s> is a tag of HTML.
func TestGemmaWritesStrikethrough(t *testing.T) {
	tok := load(t, "gemma3")
	id := tok.Encode("</s>", Options{ParseSpecial: true})
	if len(id) != 1 || tok.IsEndOfGeneration(id[0]) || tok.IsControl(id[0]) || tok.Decode(id, false) != "</s>" {
		t.Errorf("</s> is %v", id)
	}
	for _, name := range []string{"<eos>", "<end_of_turn>"} {
		id := tok.Encode(name, Options{ParseSpecial: true})
		if len(id) != 1 || !tok.IsEndOfGeneration(id[0]) || !tok.IsControl(id[0]) {
			t.Errorf("%s is %v", name, id)
		}
	}
}

func TestPhi3SwallowsSpaceAfterSpecialTokens(t *testing.T) {
	metadata := with(tinySPM(), gguf.KeyValue{Key: "general.name", Value: "Phi-3 mini"})
	text := "</s> \n hello<s> hello"
	o := Options{ParseSpecial: true}
	if got, want := tiny(t, metadata).Encode(text, o), []token.ID{2, 272, 1, 259, 272}; !slices.Equal(got, want) {
		t.Errorf("phi-3: %v, want %v", got, want)
	}
	if got := tiny(t, tinySPM()).Encode(text, o); len(got) < 7 {
		t.Errorf("others: %v", got)
	}
}

func TestPieces(t *testing.T) {
	b, s := tiny(t, tinyBPE()), tiny(t, tinySPM())
	for _, test := range []struct {
		tok  *Tokenizer
		id   token.ID
		want string
	}{
		{b, 260, " hello"}, {b, 0xff, "\xff"}, {b, 300, "<|begin|>"}, {b, 302, "<|note|>"},
		{s, 272, " hello"}, {s, 3 + 0xff, "\xff"}, {s, 1, "<s>"}, {s, 277, "  tab"}, {s, -1, ""}, {s, 1 << 20, ""},
	} {
		if got := string(test.tok.Piece(test.id)); got != test.want {
			t.Errorf("Piece(%d) = %q, want %q", test.id, got, test.want)
		}
	}
	if s.Piece(-1) != nil || b.IsControl(-1) || b.IsControl(400) {
		t.Error("ids that do not exist have pieces")
	}
}

func TestConcurrentUse(t *testing.T) {
	for _, name := range []string{"smollm2", "gemma3"} {
		tok, text := load(t, name), ordinary(t)
		want := tok.Encode(text, Options{})
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for range 3 {
					if got := tok.Encode(text, Options{}); !slices.Equal(got, want) {
						t.Error("another answer")
					}
					if tok.Decode(want, false) != text {
						t.Error("another text")
					}
				}
			})
		}
		group.Wait()
	}
}
