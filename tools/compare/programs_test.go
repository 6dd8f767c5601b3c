package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestDaisySpeed(t *testing.T) {
	l := load{prompt: 512, generate: 128}
	got, err := daisySpeed([]byte(`
{"test":"pp512","threads":1,"tokens_per_second":700.5}
{"test":"tg128","threads":1,"tokens_per_second":123.4,"memory_gb_per_second":16.5,"weight_bytes":96600000,"memory_share":0.72}
daisy: and words
`), l)
	if want := (speed{700.5, 123.4, 16.5, 0.72, 96600000}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, out := range []string{"", "{}", `{"test":"pp512","tokens_per_second":1}`, `{"test":"pp512","tokens_per_second":-1}`, "{", `{"test":7}`} {
		if _, err := daisySpeed([]byte(out), l); err == nil {
			t.Errorf("%q is believed", out)
		}
	}
}

func TestLlamaSpeed(t *testing.T) {
	l := load{prompt: 512, generate: 128}
	got, err := llamaSpeed([]byte(`{"build_commit": "0c1e570", "n_prompt": 512, "n_gen": 0, "avg_ts": 170.2}
{"n_prompt": 0, "n_gen": 128, "avg_ts": 50.1}
`), l)
	if want := (speed{prompt: 170.2, generate: 50.1}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, out := range []string{"", `{"n_prompt": 512, "n_gen": 128, "avg_ts": 170.2}`, `{"n_prompt": 256, "n_gen": 0, "avg_ts": 1}`} {
		if _, err := llamaSpeed([]byte(out), l); err == nil {
			t.Errorf("%q is believed", out)
		}
	}
	if _, err := llamaSpeed([]byte(`{"n_prompt": 0, "n_gen": 128, "avg_ts": 50.1}`), load{generate: 128}); err != nil {
		t.Errorf("without a prompt: %v", err)
	}
}

func TestPerplexity(t *testing.T) {
	for out, want := range map[string]float64{
		"PPL = 13.006\n": 13.006,
		"[1]15.2993,[2]17.0795,\n0.36 I Final estimate: PPL = 19.8137 +/- 0.77544\n": 19.8137,
		"daisy: chunk 1: PPL = 15.4\ndaisy: chunk 2: PPL = 13.1\n":                   13.1,
	} {
		if got, err := perplexity([]byte(out)); err != nil || got != want {
			t.Errorf("%q gives %v, %v", out, got, err)
		}
	}
	for _, out := range []string{"", "PPL = nan", "PPL = 1.2.3"} {
		if got, err := perplexity([]byte(out)); err == nil {
			t.Errorf("%q gives %v", out, got)
		}
	}
}

// What is measured runs under the user's command, and what it says on either stream counts.
func TestProgramsRunUnderACommand(t *testing.T) {
	var ran []string
	p := &programs{daisy: "daisy", prefix: []string{"nice", "-n", "1"}, measure: func(_ context.Context, command ...string) (out, errs []byte, err error) {
		ran = command
		return nil, []byte(`{"test":"tg8","tokens_per_second":5}`), nil
	}}
	for range 2 { // the second command does not grow from the first
		got, err := p.bench(t.Context(), load{model: "m.gguf", threads: 3, generate: 8})
		if err != nil || got.generate != 5 {
			t.Errorf("%+v, %v", got, err)
		}
		if want := "nice -n 1 daisy bench --json --repetitions 1 --model m.gguf --threads 3 --prompt 0 --generate 8"; strings.Join(ran, " ") != want {
			t.Errorf("ran %q", ran)
		}
	}
}

func TestChoose(t *testing.T) {
	names := func(only ...string) (names []string) {
		chosen, err := choose(subjects(), only)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range chosen {
			names = append(names, s.name)
		}
		return names
	}
	if got := names(); len(got) != 9 {
		t.Errorf("all are %q", got)
	}
	if got, want := names("7b", "smollm2"), []string{"smollm2", "smollm2-q4_0", "7b-q4_0", "7b-q4_k", "7b-q8_0"}; !reflect.DeepEqual(got, want) {
		t.Errorf("chose %q", got)
	}
	for _, unknown := range []string{"", "8b"} {
		if _, err := choose(subjects(), []string{unknown}); err == nil {
			t.Errorf("%q is chosen", unknown)
		}
	}
}

func TestFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parse([]string{"--llama", "here", "--threads", "1, 4", "--only", "7b", "--chinese", file, "--english", file, "--model", "7b-q4_0=" + file, "--under", "nice -n 1"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(o.llama) || !filepath.IsAbs(o.cache) || !slices.Equal(o.threads, []int{1, 4}) || len(o.subjects) != 3 ||
		len(o.tests) != 3 || o.given["7b-q4_0"] != file || len(o.texts) != 2 || o.texts[0].language != "English" {
		t.Errorf("%+v", o)
	}
	for _, args := range [][]string{
		{}, {"--llama", "x", "more"}, {"--llama", "x", "--rounds", "0"}, {"--llama", "x", "--threads", "0"}, {"--llama", "x", "--threads", ""},
		{"--llama", "x", "--tests", "fun"}, {"--llama", "x", "--tests", ""}, {"--llama", "x", "--only", "9b"}, {"--llama", "x", "--english", file + "x"},
		{"--llama", "x", "--model", "9b=" + file}, {"--llama", "x", "--model", "7b-q4_0=" + file + "x"}, {"--llama", "x", "--limit", "-1s"},
	} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

// maker is a runner that makes the file which the command names, and fails if it is told to.
func maker(t *testing.T, ran *[]string, fail bool) runner {
	return func(_ context.Context, command ...string) (out, errs []byte, err error) {
		*ran = append(*ran, strings.Join(command, " "))
		if command[1] == "pull" {
			return []byte("/store/" + command[2] + ".gguf\nsha256:00\n"), nil, nil
		}
		path := command[len(command)-1]
		if command[0] == "quantize" {
			path = command[len(command)-2]
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if fail {
			return nil, nil, errors.New("the disk is full")
		}
		return nil, nil, nil
	}
}

func TestFilesAreMadeOnce(t *testing.T) {
	var ran []string
	dir := t.TempDir()
	f := &files{dir: dir, given: map[string]string{"gemma3": "mine"}, daisy: "daisy", llama: "quantize", say: func(string, ...any) {}}
	for range 2 {
		for _, s := range subjects()[:4] {
			f.run = maker(t, &ran, false)
			path, err := f.of(t.Context(), s)
			want := map[string]string{"smollm2": "/store/smollm2.gguf", "gemma3": "mine"}[s.name]
			if want == "" {
				want = filepath.Join(dir, s.name+".gguf")
			}
			if err != nil || path != want {
				t.Errorf("%s is at %s, %v", s.name, path, err)
			}
		}
	}
	partial := func(name string) string { return filepath.Join(dir, name+".gguf.partial") }
	want := []string{
		"daisy pull smollm2", "daisy pull smollm2", "quantize --allow-requantize /store/smollm2.gguf " + partial("smollm2-q4_0") + " Q4_0",
		"daisy bench synth --force --like 1b --type q4_0 " + partial("1b-q4_0"), "daisy pull smollm2",
	}
	if !slices.Equal(ran, want) {
		t.Errorf("ran %q, want %q", ran, want)
	}
}

func TestFailedFilesAreNotKept(t *testing.T) {
	var ran []string
	for _, s := range []subject{subjects()[1], subjects()[3]} {
		dir := t.TempDir()
		f := &files{dir: dir, daisy: "daisy", llama: "quantize", run: maker(t, &ran, true), say: func(string, ...any) {}}
		if _, err := f.of(t.Context(), s); err == nil || !strings.Contains(err.Error(), "disk is full") {
			t.Errorf("%s: %v", s.name, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s: left %v, %v", s.name, left, err)
		}
	}
}
