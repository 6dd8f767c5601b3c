//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// prompts are of several kinds: short and long, in languages and in code, greedy and drawn.
func prompts() map[string]map[string]any {
	return map[string]map[string]any{
		"greedy":   {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 40},
		"code":     {"prompt": "def fibonacci(n):\n    ", "temperature": 0, "max_tokens": 40},
		"chinese":  {"prompt": "一朵雏菊说：你好！🌼", "temperature": 0, "max_tokens": 40, "ignore_eos": true},
		"drawn":    {"prompt": "Once upon a time", "temperature": 1, "seed": 42, "max_tokens": 40},
		"drawn 2":  {"prompt": "Once upon a time", "temperature": 1, "seed": 43, "max_tokens": 40},
		"cut":      {"prompt": "Roses are", "temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "seed": 7, "max_tokens": 40},
		"fined":    {"prompt": "red red red", "temperature": 0, "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.5, "max_tokens": 40},
		"long":     {"prompt": strings.Repeat("A daisy turns to the sun, closes at night and opens again in the morning. ", 25), "temperature": 0, "max_tokens": 24},
		"one":      {"prompt": "x", "temperature": 0, "max_tokens": 1},
		"ids":      {"prompt": []int{1, 2, 3, 4, 5, 6}, "temperature": 0, "max_tokens": 10},
		"stopping": {"prompt": "1, 2, 3, 4,", "temperature": 0, "stop": []string{" 8"}, "max_tokens": 60},
	}
}

// The tokens do not depend on how many shards there are, how many threads they have, or what else runs at the same time.
func TestOneAnswer(t *testing.T) {
	want := map[string]answer{}
	for _, test := range []struct {
		shards int
		args   []string
	}{
		{1, nil},
		{2, nil},
		{3, nil},
		{2, []string{"--threads", "3", "--kernels", otherKernels(t)}},
	} {
		t.Run(fmt.Sprint(test.shards, test.args), func(t *testing.T) {
			c := up(t, test.shards, test.args...)
			got := map[string]answer{}
			for name, request := range prompts() {
				a, err := c.complete(request)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				got[name] = a
			}
			if len(want) == 0 {
				want = got
				checkSense(t, want)
			}
			compare(t, "one by one", got, want)
			compare(t, "all at once", c.completeAll(t, prompts()), want)
			c.end(t)
		})
	}
}

// otherKernels are the slowest that this CPU can run in assembly, if it has several. The reference would take minutes.
func otherKernels(t *testing.T) string {
	t.Helper()
	stdout, _, code := daisy(t, "version")
	m := regexp.MustCompile(`(?m)^kernels +(\w+) \(available: reference(?:, (\w+))?`).FindStringSubmatch(stdout)
	if code != 0 || m == nil {
		t.Fatalf("daisy version: exit code %d, %s", code, stdout)
	}
	if m[2] == "" {
		return m[1]
	}
	return m[2]
}

// checkSense: the answers are those of a model that has learnt something.
func checkSense(t *testing.T, answers map[string]answer) {
	t.Helper()
	if a := answers["greedy"]; !strings.Contains(a.Text, "Paris") {
		t.Errorf("the capital of France is%s", a.Text)
	}
	if a := answers["stopping"]; a.Finish != "stop" || strings.TrimSpace(a.Text) != "5, 6, 7," {
		t.Errorf("1, 2, 3, 4,%q (%s)", a.Text, a.Finish)
	}
	if reflect.DeepEqual(answers["drawn"], answers["drawn 2"]) {
		t.Error("two seeds gave the same answer")
	}
	if a := answers["one"]; len(a.IDs) != 1 || a.Finish != "length" {
		t.Errorf("one token was asked for: %+v", a)
	}
	if a := answers["chinese"]; len(a.IDs) != 40 || strings.ContainsRune(a.Text, '�') && !strings.HasSuffix(a.Text, "�") {
		t.Errorf("half characters in %q", a.Text)
	}
}

func compare(t *testing.T, how string, got, want map[string]answer) {
	t.Helper()
	for name := range want {
		if !reflect.DeepEqual(got[name], want[name]) {
			t.Errorf("%s, %s:\ngot  %+v\nwant %+v", how, name, got[name], want[name])
		}
	}
}

// completeAll sends all requests at once.
func (c *cluster) completeAll(t *testing.T, requests map[string]map[string]any) map[string]answer {
	t.Helper()
	var mu sync.Mutex
	got := map[string]answer{}
	var group sync.WaitGroup
	for name, request := range maps.All(requests) {
		group.Go(func() {
			a, err := c.complete(request)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			got[name] = a
		})
	}
	group.Wait()
	return got
}
