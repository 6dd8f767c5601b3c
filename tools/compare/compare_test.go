package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// scripted is a comparison of programs that do as they are told: of the first subject each has a speed per round.
type scripted struct {
	comparison
	out   bytes.Buffer
	order strings.Builder // D and L, as they were run
}

func script(daisy, llama []speed) *scripted {
	s := &scripted{}
	next := func(letter string, speeds *[]speed) func(context.Context, load) (speed, error) {
		return func(ctx context.Context, l load) (speed, error) {
			if len(*speeds) == 0 {
				return speed{}, errors.New("asked too often")
			}
			s.order.WriteString(letter)
			v := (*speeds)[0]
			*speeds = (*speeds)[1:]
			return v, ctx.Err()
		}
	}
	s.comparison = comparison{
		threads: []int{1}, rounds: 3, out: &s.out, say: func(string, ...any) {},
		daisy: next("D", &daisy), llama: next("L", &llama),
		file: func(_ context.Context, s subject) (string, error) { return s.name + ".gguf", nil },
	}
	return s
}

func TestSpeeds(t *testing.T) {
	s := script(
		[]speed{
			{prompt: 100, generate: 10, memory: 10, share: 0.95, weights: 5e8},
			{prompt: 300, generate: 30, memory: 20, share: 0.85, weights: 5e8},
			{prompt: 200, generate: 20, memory: 15, share: 0.90, weights: 5e8},
		},
		[]speed{{prompt: 100, generate: 8}, {prompt: 100, generate: 10}, {prompt: 100, generate: 10}})
	s.comparison.speed = true
	s.subjects = []subject{{name: "x", title: "X", generate: 32, generating: target{2.5, 1}, prompt: target{2, 1}, share: target{0.9, 0}}}
	if err := s.all(t.Context()); err != nil {
		t.Fatal(err)
	}
	const want = `
### Tokens a second

| model | test | threads | Daisy | llama.cpp | ratio | at least | reached | ratio at the speed of memory |
|---|---|---|---|---|---|---|---|---|
| X | generate 32 | 1 | 20.0 | 10.0 | 2.00 | 2.50 | **no** | 3.00 |
| X | prompt 512 | 1 | 200 | 100 | 2.00 | 2.00 | yes |  |

### Memory

| model | threads | plain reader, GB/s | weights of a token, GB | share that generating reaches | at least | reached |
|---|---|---|---|---|---|---|
| X | 1 | 15.0 | 0.500 | 90 % | 90 % | yes |
`
	if got := s.out.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got := s.order.String(); got != "DLLDDL" {
		t.Errorf("ran in the order %s", got)
	}
}

// A model that fails leaves a row that says so; the others are measured, and the error is told.
func TestFailureLeavesARow(t *testing.T) {
	s := script([]speed{{prompt: 2, generate: 2}, {prompt: 2, generate: 2}}, []speed{{prompt: 1, generate: 1}, {prompt: 1, generate: 1}})
	s.comparison.speed, s.rounds, s.threads = true, 1, []int{1, 2}
	s.subjects = []subject{{name: "bad", title: "Bad"}, {name: "good", title: "Good"}}
	s.file = func(_ context.Context, s subject) (string, error) {
		if s.name == "bad" {
			return "", errors.New("no such model")
		}
		return s.name, nil
	}
	err := s.all(t.Context())
	if err == nil || !strings.Contains(err.Error(), "bad: no such model") {
		t.Errorf("the error is %v", err)
	}
	if got := s.out.String(); !strings.Contains(got, "| Bad | failed |") || strings.Count(got, "| Good |") != 4 {
		t.Errorf("got:\n%s", got)
	}
}

func TestEndedInTheMiddle(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	s := script([]speed{{prompt: 2, generate: 2}}, nil)
	s.comparison.speed, s.beside, s.subjects = true, true, []subject{{name: "x", title: "X"}}
	s.llama = func(ctx context.Context, _ load) (speed, error) {
		cancel(errors.New("that will do"))
		return speed{}, ctx.Err()
	}
	if err := s.all(ctx); err == nil || err.Error() != "that will do" {
		t.Errorf("ended with %v", err)
	}
	if got := s.order.String() + s.out.String(); got != "D" {
		t.Errorf("went on: %s", got)
	}
}

func TestBeside(t *testing.T) {
	s := script([]speed{{generate: 400}, {generate: 160}}, []speed{{generate: 200}, {generate: 10}})
	s.beside, s.rounds, s.subjects = true, 1, []subject{{name: "x", title: "X", generate: 128}}
	if err := s.all(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| Daisy | 400 | 160 | 40 % | 50 % | **no** |\n", "| llama.cpp | 200 | 10.0 | 5 % |  |  |\n"} {
		if !strings.Contains(s.out.String(), want) {
			t.Errorf("got:\n%s\nwithout %s", &s.out, want)
		}
	}
}

func TestPerplexities(t *testing.T) {
	s := script(nil, nil)
	s.texts = []text{{"English", "en"}, {"Chinese", "zh"}}
	s.subjects = []subject{{name: "x", title: "X", text: true}, {name: "random", title: "Random"}}
	s.perplexities = func(_ context.Context, model, text string) (daisy, llama float64, err error) {
		if model != "x.gguf" {
			return 0, 0, fmt.Errorf("measured %s", model)
		}
		return map[string]float64{"en": 19.91, "zh": 40.25}[text], map[string]float64{"en": 20, "zh": 40}[text], nil
	}
	if err := s.all(t.Context()); err != nil {
		t.Fatal(err)
	}
	const rows = "| X | English | 19.910 | 20.000 | -0.45 % | ±0.5 % | yes |\n| X | Chinese | 40.250 | 40.000 | +0.63 % | ±0.5 % | **no** |\n"
	if !strings.HasSuffix(s.out.String(), rows) {
		t.Errorf("got:\n%s", &s.out)
	}
}

func TestMedian(t *testing.T) {
	for want, values := range map[float64][]float64{0: nil, 3: {3}, 2.5: {4, 1}, 2: {9, 1, 2}} {
		if got := median(values); got != want {
			t.Errorf("the median of %v is %v, want %v", values, got, want)
		}
	}
}

func TestTableEscapes(t *testing.T) {
	var out strings.Builder
	table := &table{w: &out, title: "T", names: []string{"a", "b"}}
	table.row("x|y\nz")
	if want := "\n### T\n\n| a | b |\n|---|---|\n| x\\|y z |  |\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
