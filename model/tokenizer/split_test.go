package tokenizer

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

func words(s *splitter, text string) []string {
	var list []string
	s.split(new(splitScratch), text, func(word string) { list = append(list, word) })
	return list
}

func splitterOf(t testing.TB, pre string) *splitter {
	t.Helper()
	r, ok := ruleOf(pre)
	if !ok {
		t.Fatalf("no rule %q", pre)
	}
	s, err := newSplitter(r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRulesCutLikeTheModelsOwn(t *testing.T) {
	data, err := os.ReadFile("testdata/splits.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden map[string][][]string
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden) < 15 {
		t.Fatalf("only %d rules", len(golden))
	}
	for pre, texts := range golden {
		t.Run(pre, func(t *testing.T) {
			s := splitterOf(t, pre)
			for _, want := range texts {
				text := strings.Join(want, "")
				if got := words(s, text); !slices.Equal(got, want) {
					t.Errorf("%q is cut into\n%q, want\n%q", text, got, want)
				}
			}
		})
	}
}

// knownRules are the rules that a file may name.
func knownRules() []string {
	return []string{
		"default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "gigachat", "a.x-4.0", "mellum",
		"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2",
		"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
		"smaug-bpe", "dbrx", "chatglm-bpe", "glm4",
		"qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "solar-open", "grok-2", "kormo", "f2llmv2", "qwen35",
		"minicpm5", "laguna", "ufakzeka", "seed-coder", "bailingmoe", "bailingmoe2", "llada-moe", "exaone-moe",
		"tekken", "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "kimi-k2", "youtu", "tiny_aya", "cohere2moe",
		"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4", "afmoe", "deepseek-coder", "deepseek-llm", "falcon",
		"poro-chat", "bloom", "gpt3-finnish", "viking",
	}
}

// Quadratic time would not end here: a hundred thousand characters, squared, for each rule and text.
func TestRulesTakeLinearTime(t *testing.T) {
	const n = 1 << 17
	texts := []string{"a", "A", " ", "\n", "1", "中", "!", "aA", "a ", " \n", "中A", "'s", "\u0301", "!\n"}
	for i, unit := range texts {
		texts[i] = strings.Repeat(unit, n/len(unit))
	}
	texts = append(texts, strings.Repeat(" ", n)+"x", strings.Repeat("1", n)+"x", "中"+strings.Repeat("A", n), strings.Repeat("\n", n)+" x")
	seen := map[string]bool{}
	for _, pre := range knownRules() {
		r, _ := ruleOf(pre)
		key := strings.Join(r.expressions, "\x00")
		if seen[key] {
			continue
		}
		seen[key] = true
		s := splitterOf(t, pre)
		for _, text := range texts {
			size := 0
			s.split(new(splitScratch), text, func(word string) { size += len(word) })
			if size != len(text) {
				t.Errorf("%s: the words of %.10q... have %d bytes of %d", pre, text, size, len(text))
			}
		}
	}
}

func TestUnknownRule(t *testing.T) {
	for _, pre := range []string{"", "no-such-rule", "GPT-2", "gemma4"} {
		if _, ok := ruleOf(pre); ok {
			t.Errorf("rule %q is known", pre)
		}
	}
}

func TestRulesByHand(t *testing.T) {
	for _, test := range []struct {
		pre  string
		want []string
	}{
		{"deepseek-llm", []string{"Hello", " World", "\n", "  ", " x", "!?", "中文", "1234", "  "}},
		{"afmoe", []string{"abc", "1", "234", "567", " ", "12", "ไทย", " def"}},
		{"youtu", []string{"Hello", "한국", "，", "中文", "1", "2"}},
		{"viking", []string{"Hello", " world", "1", "2", "."}},
		{"laguna", []string{"a", " ", "\n\n", " b"}},
		{"ufakzeka", []string{"Ankara", "'da", "1", "2"}},
	} {
		text := strings.Join(test.want, "")
		if got := words(splitterOf(t, test.pre), text); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q is cut into %q, want %q", test.pre, text, got, test.want)
		}
	}
}
