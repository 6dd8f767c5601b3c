package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

// scripted takes the times it is told to take.
type scripted struct {
	prompts, generations []time.Duration
	asked                []int // tokens
}

func (s *scripted) prompt(_ context.Context, tokens int) (time.Duration, error) {
	return s.next(&s.prompts, tokens)
}

func (s *scripted) generate(_ context.Context, tokens int) (time.Duration, error) {
	return s.next(&s.generations, tokens)
}

func (s *scripted) next(times *[]time.Duration, tokens int) (time.Duration, error) {
	if len(*times) == 0 {
		return 0, errors.New("asked too often")
	}
	took := (*times)[0]
	*times = (*times)[1:]
	s.asked = append(s.asked, tokens)
	return took, nil
}

func TestBenchFigures(t *testing.T) {
	const ms = time.Millisecond
	s := &scripted{
		prompts:     []time.Duration{9 * time.Second, 500 * ms, 1000 * ms, 250 * ms},
		generations: []time.Duration{9 * time.Second, 1000 * ms, 2000 * ms, 500 * ms},
	}
	speeds := []float64{10, 20, 40} // GB/s
	b := &bench{
		benchOptions: benchOptions{Prompt: 512, Generate: 128, Repetitions: 3},
		say:          new(bytes.Buffer), threads: 2, weights: 1e8,
		readMemory: func(threads int) float64 {
			speed := speeds[0]
			speeds = speeds[1:]
			return speed * float64(threads) / 2
		},
	}
	if err := b.measure(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if want := []int{512, 512, 512, 512, 8, 128, 128, 128}; len(s.asked) != len(want) || s.asked[4] != 8 || s.asked[7] != 128 {
		t.Errorf("measured with %v, want %v", s.asked, want)
	}

	var out strings.Builder
	if err := b.write(&out); err != nil {
		t.Fatal(err)
	}
	// The pairs are 12.8 of 10, 6.4 of 20 and 25.6 of 40 GB/s.
	const want = `TEST   THREADS  TOKENS/S  LOWEST  HIGHEST
pp512        2  1024.0    512.0   2048.0
tg128        2  128.0     64.0    256.0

2 threads: memory is read at 20.0 GB/s; a token reads 0.100 GB of weights: generating reaches 64 % of that
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}

	var lines bytes.Buffer
	for range 2 { // the second time there is nothing new
		if err := b.writeJSON(&lines); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []map[string]any{
		{"test": "pp512", "threads": 2.0, "tokens_per_second": 1024.0},
		{"test": "tg128", "threads": 2.0, "tokens_per_second": 128.0, "memory_gb_per_second": 20.0, "weight_bytes": 1e8, "memory_share": 0.64},
	} {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		for key := range want {
			if len(got) != len(want) || got[key] != want[key] {
				t.Errorf("%s: got %v, want %v", line, got, want)
			}
		}
	}
	if lines.Len() != 0 {
		t.Errorf("and %q", lines.String())
	}
}

// A subject that fails ends the measurement, and leaves no figure.
func TestBenchFails(t *testing.T) {
	b := &bench{benchOptions: benchOptions{Prompt: 4, Repetitions: 3}, say: new(bytes.Buffer), threads: 1}
	if err := b.measure(t.Context(), &scripted{prompts: []time.Duration{1, 1}}); err == nil || len(b.results) != 0 {
		t.Errorf("%v, %v", err, b.results)
	}
}

func TestMedian(t *testing.T) {
	for want, values := range map[float64][]float64{3: {3}, 2.5: {4, 1}, 2: {9, 1, 2}, 1.5: {0, 1, 2, 9}} {
		if got := median(values); got != want {
			t.Errorf("the median of %v is %v, want %v", values, got, want)
		}
	}
}

func TestRandomIDs(t *testing.T) {
	a, b := randomIDs(100, 7, 1), randomIDs(100, 7, 2)
	if a[0] == b[0] {
		t.Error("two turns begin alike")
	}
	for _, id := range a {
		if id < 0 || id >= 7 {
			t.Fatalf("token %d of 7", id)
		}
	}
}
