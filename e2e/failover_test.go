//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/daisy-llm/daisy/coordinator"
)

// told is all that a client gets to know of an answer.
type told struct {
	Text     string
	IDs      []int
	Logprobs []float64
	Finish   string
}

// completionChunk is a piece of a streamed completion, or a whole one.
type completionChunk struct {
	Choices []struct {
		Index    int
		Text     string
		TokenIDs []int `json:"token_ids"`
		Logprobs *struct {
			TokenLogprobs []float64 `json:"token_logprobs"`
		}
		Finish *string `json:"finish_reason"`
	}
}

// add puts a chunk to what was told before.
func (c *completionChunk) add(answers map[int]*told) {
	for _, choice := range c.Choices {
		a := answers[choice.Index]
		if a == nil {
			a = &told{}
			answers[choice.Index] = a
		}
		a.Text += choice.Text
		a.IDs = append(a.IDs, choice.TokenIDs...)
		if choice.Logprobs != nil {
			a.Logprobs = append(a.Logprobs, choice.Logprobs.TokenLogprobs...)
		}
		if choice.Finish != nil {
			a.Finish = *choice.Finish
		}
	}
}

// ask sends a completion, streamed or not, and gathers the answers by index. It calls progress after each piece.
func (c *cluster) ask(request map[string]any, progress func()) (map[int]*told, error) {
	request["return_token_ids"] = true
	raw, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	res, err := http.Post("http://"+c.address+"/v1/completions", "application/json", bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answers := map[int]*told{}
	if request["stream"] != true || res.StatusCode != http.StatusOK {
		var body bytes.Buffer
		var chunk completionChunk
		if _, err := body.ReadFrom(res.Body); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(body.Bytes(), &chunk); res.StatusCode != http.StatusOK || err != nil {
			return nil, fmt.Errorf("status %d, %v: %s", res.StatusCode, err, &body)
		}
		chunk.add(answers)
		return answers, nil
	}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		switch {
		case !ok: // between events, or a comment
		case data == "[DONE]":
			return answers, nil
		case strings.Contains(data, `"error"`):
			return nil, fmt.Errorf("the stream broke off: %s", data)
		default:
			var chunk completionChunk
			if err := json.Unmarshal([]byte(data), &chunk); err != nil {
				return nil, err
			}
			chunk.add(answers)
			progress()
		}
	}
	return nil, fmt.Errorf("the stream ended without [DONE]: %v", lines.Err())
}

// disturbed are requests of all kinds: greedy and drawn, one answer and several, streamed and whole, with penalties, which look
// at all tokens before, and log probabilities.
func disturbed(prompt string, tokens int) map[string]map[string]any {
	return map[string]map[string]any{
		"greedy": {"prompt": prompt + " One", "temperature": 0, "logprobs": 2, "max_tokens": tokens, "ignore_eos": true},
		"drawn": {"prompt": prompt + " Two", "temperature": 1, "top_p": 0.9, "seed": 42, "n": 2, "presence_penalty": 0.4, "repetition_penalty": 1.1,
			"max_tokens": tokens, "ignore_eos": true, "stream": true, "logprobs": 1},
		"streamed": {"prompt": prompt + " Three", "temperature": 0, "frequency_penalty": 0.3, "max_tokens": tokens, "ignore_eos": true, "stream": true},
	}
}

// A killed shard changes nothing that clients are told: whichever stage it was, in the middle of prompts or of answers, as long
// as others can hold the model. The last of four shards serves alone in the end.
func TestKilledShardsChangeNothing(t *testing.T) {
	for phase, requests := range map[string]func() map[string]map[string]any{
		"prompt": func() map[string]map[string]any {
			return disturbed(strings.Repeat("A daisy turns to the sun, closes at night and opens again. ", 40), 10)
		},
		"answer": func() map[string]map[string]any { return disturbed("1, 2, 3,", 60) },
	} {
		t.Run(phase, func(t *testing.T) {
			c := up(t, 4)
			want := map[string]map[int]*told{}
			for name, request := range requests() {
				answers, err := c.ask(request, func() {})
				if err != nil {
					t.Fatalf("undisturbed, %s: %v", name, err)
				}
				want[name] = answers
			}
			for _, victim := range []func(stages []coordinator.ShardStatus) coordinator.ShardStatus{
				func(s []coordinator.ShardStatus) coordinator.ShardStatus { return s[0] },
				func(s []coordinator.ShardStatus) coordinator.ShardStatus { return s[1] },
				func(s []coordinator.ShardStatus) coordinator.ShardStatus { return s[len(s)-1] },
			} {
				var stages []coordinator.ShardStatus
				waitFor(t, "a plan over the shards that are left", func() bool {
					s := c.status(t)
					stages = slices.DeleteFunc(s.Shards, func(shard coordinator.ShardStatus) bool { return shard.Stage < 0 })
					return s.State == coordinator.StateReady
				})
				c.disturb(t, requests(), want, phase == "answer", victim(stages).PID)
			}
			c.end(t)
		})
	}
}

// disturb kills a process while requests are answered, and compares the answers.
func (c *cluster) disturb(t *testing.T, requests map[string]map[string]any, want map[string]map[int]*told, begun bool, victim int) {
	t.Helper()
	type outcome struct {
		name    string
		answers map[int]*told
		err     error
	}
	ended := make(chan outcome)
	progress := make(chan struct{}, 10)
	for name, request := range requests {
		go func() {
			answers, err := c.ask(request, func() {
				select {
				case progress <- struct{}{}:
				default:
				}
			})
			ended <- outcome{name, answers, err}
		}()
	}
	if begun {
		waitFor(t, "tokens", func() bool { return len(progress) == cap(progress) })
	} else {
		waitFor(t, "generations", func() bool { return c.status(t).Active > 1 })
	}
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range requests {
		if o := <-ended; o.err != nil {
			t.Errorf("%s: %v", o.name, o.err)
		} else if !reflect.DeepEqual(o.answers, want[o.name]) {
			t.Errorf("%s: %s, want %s", o.name, describe(o.answers), describe(want[o.name]))
		}
	}
}

func describe(answers map[int]*told) string {
	raw, _ := json.Marshal(answers)
	return string(raw)
}

// A spare shard takes the place of one that is killed. Without enough memory in those that are left an answer waits for a
// shard to come, and ends as an error, never as a success, if none does.
func TestSpareAndNoPlace(t *testing.T) {
	address := freePort(t)
	c := &cluster{process: start(t, "coordinator", "--model", modelFile, "--listen", address, "--shards", "2", "--context", "1024", "--recovery-timeout", "10s"), address: address}
	shard := func(name string) *process {
		return start(t, "shard", "--join", address, "--name", name, "--threads", "1", "--memory", "170MiB")
	}
	processes := map[string]*process{"one": shard("one"), "two": shard("two")}
	c.waitReady(t)
	request := func() map[string]any {
		return map[string]any{"prompt": "1, 2, 3,", "temperature": 1, "seed": 7, "max_tokens": 400, "ignore_eos": true, "stream": true}
	}
	want, err := c.ask(request(), func() {})
	if err != nil {
		t.Fatal(err)
	}
	stream := func() (<-chan struct{}, <-chan error) {
		first, ended := make(chan struct{}), make(chan error, 1)
		begun := sync.OnceFunc(func() { close(first) })
		go func() {
			defer begun()
			n := 0
			got, err := c.ask(request(), func() {
				if n++; n == 5 {
					begun()
				}
			})
			if err == nil && !reflect.DeepEqual(got, want) {
				err = fmt.Errorf("%s, want %s", describe(got), describe(want))
			}
			ended <- err
		}()
		return first, ended
	}
	kill := func(name string) {
		processes[name].signal(t, syscall.SIGKILL)
		<-processes[name].done
		delete(processes, name)
	}

	first, ended := stream()
	<-first
	kill("two") // one alone cannot hold the model
	waitFor(t, "the coordinator to wait for memory", func() bool {
		s := c.status(t)
		return s.State == coordinator.StateRecovering && strings.Contains(s.Detail, "missing")
	})
	processes["three"] = shard("three")
	if err := <-ended; err != nil {
		t.Errorf("a shard came in place of one that was killed: %v", err)
	}

	first, ended = stream()
	<-first
	processes["four"] = shard("four")
	waitFor(t, "a spare", func() bool {
		for _, s := range c.status(t).Shards {
			if s.Name == "four" && s.State == "spare" {
				return true
			}
		}
		return c.status(t).Active == 0 // too late: it has become a stage
	})
	kill("one")
	if err := <-ended; err != nil {
		t.Errorf("a spare was there: %v", err)
	}

	first, ended = stream()
	<-first
	kill("three")
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "shard_lost") {
		t.Errorf("nothing can hold the model, and the stream ended with %v", err)
	}
	if status, body, err := c.post("/v1/completions", map[string]any{"prompt": "1", "max_tokens": 1}); status != http.StatusServiceUnavailable || !bytes.Contains(body, []byte("not_ready")) {
		t.Errorf("a request without a cluster: %d, %s, %v", status, body, err)
	}
}
