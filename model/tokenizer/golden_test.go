package tokenizer

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/token"
)

// open reads a vocabulary of testdata.
func open(t testing.TB, name string) *gguf.File {
	t.Helper()
	f, err := os.Open("testdata/" + name + ".gguf.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	file, err := gguf.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func load(t testing.TB, name string) *Tokenizer {
	t.Helper()
	tok, err := New(open(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// vector is a line of the golden files: what llama.cpp makes of a text.
type vector struct {
	Category     string
	Text         string
	AddSpecial   bool `json:"add_special"`
	ParseSpecial bool `json:"parse_special"`
	IDs          []token.ID
	Detok        string
}

func vectors(t testing.TB, name string) []vector {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name + ".jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var list []vector
	for d := json.NewDecoder(bytes.NewReader(data)); d.More(); {
		var v vector
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	if len(list) < 200 {
		t.Fatalf("%s: only %d vectors", name, len(list))
	}
	return list
}

func TestGoldenVectors(t *testing.T) {
	for _, name := range []string{"smollm2", "gemma3"} {
		t.Run(name, func(t *testing.T) {
			tok := load(t, name)
			for _, v := range vectors(t, name) {
				ids := tok.Encode(v.Text, Options{AddSpecial: v.AddSpecial, ParseSpecial: v.ParseSpecial})
				if !slices.Equal(ids, v.IDs) {
					t.Errorf("%s: Encode(%q) = %v, want %v", v.Category, v.Text, ids, v.IDs)
				}
				if text := tok.Decode(v.IDs, true); text != v.Detok {
					t.Errorf("%s: Decode(%v) = %q, want %q", v.Category, v.IDs, text, v.Detok)
				}
				checkDecoder(t, tok, v.IDs, true)
				checkDecoder(t, tok, v.IDs, false)
			}
		})
	}
}

// checkDecoder holds a Decoder to what it promises.
func checkDecoder(t *testing.T, tok *Tokenizer, ids []token.ID, special bool) {
	t.Helper()
	d := tok.NewDecoder(special)
	var all strings.Builder
	for _, id := range ids {
		chunk := d.Push(id)
		if strings.ToValidUTF8(chunk, "") != chunk {
			t.Fatalf("Push gave %q, which is not UTF-8", chunk)
		}
		all.WriteString(chunk)
	}
	all.WriteString(d.Flush())
	if whole := tok.Decode(ids, special); all.String() != whole {
		t.Fatalf("pushed: %q, decoded: %q", all.String(), whole)
	}
}

func TestGoldenPrompts(t *testing.T) {
	folders, err := os.ReadDir("../testdata/golden")
	if err != nil {
		t.Fatal(err)
	}
	families := map[string]bool{}
	for _, folder := range folders {
		path := "../testdata/golden/" + folder.Name()
		data, err := os.ReadFile(path + "/golden.json")
		if err != nil {
			continue // a folder of something else
		}
		t.Run(folder.Name(), func(t *testing.T) {
			var golden struct {
				Tokenizer struct {
					Model    string
					BOS, EOS token.ID
				}
				Prompts map[string]struct {
					Text string
					IDs  []token.ID `json:"token_ids"`
				}
			}
			if err := json.Unmarshal(data, &golden); err != nil {
				t.Fatal(err)
			}
			f, err := gguf.Open(path + "/model.gguf")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			tok, err := New(f)
			if err != nil {
				t.Fatal(err)
			}
			families[golden.Tokenizer.Model] = true
			if len(golden.Prompts) < 2 {
				t.Errorf("only %d prompts", len(golden.Prompts))
			}
			for name, prompt := range golden.Prompts {
				if ids := tok.Encode(prompt.Text, Options{AddSpecial: true}); !slices.Equal(ids, prompt.IDs) {
					t.Errorf("prompt %s: %v, want %v", name, ids, prompt.IDs)
				}
				if text := tok.Decode(prompt.IDs, false); text != prompt.Text {
					t.Errorf("prompt %s decodes to %q, want %q", name, text, prompt.Text)
				}
			}
			if id, ok := tok.BOS(); !ok || id != golden.Tokenizer.BOS {
				t.Errorf("BOS is %d, %v, want %d", id, ok, golden.Tokenizer.BOS)
			}
			if id, ok := tok.EOS(); !ok || id != golden.Tokenizer.EOS || !tok.IsEndOfGeneration(id) || !tok.IsControl(id) {
				t.Errorf("EOS is %d, %v, want %d, a control token that ends generations", id, ok, golden.Tokenizer.EOS)
			}
		})
	}
	if !families["gpt2"] || !families["llama"] {
		t.Errorf("models of the families %v only", families)
	}
}
