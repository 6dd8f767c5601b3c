//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// request is one of those that are made again and again.
type request struct {
	prompt      []int
	temperature float64
	seed        int
	tokens      int
}

// requests are of two kinds: greedy ones and drawn ones, with prompts of several lengths.
func requests(count, longest, tokens int) []request {
	var all []request
	for i := range count {
		r := request{seed: i, tokens: tokens}
		for j := range 1 + 37*(i+1)%longest {
			r.prompt = append(r.prompt, 10+(i*131+j*17)%100)
		}
		if i%2 == 1 {
			r.temperature = 1
		}
		all = append(all, r)
	}
	return all
}

// end is how a stream ended.
type end int

const (
	complete  end = iota // with the tokens of the undisturbed answer
	different            // with others: what must never happen
	falseEnd             // as if it were complete, and it is not: neither
	failed               // with an error that says so, or none of the server's making
	silent               // no token for as long as we wait
	given                // we ended it
)

var endNames = [...]string{"complete", "DIFFERENT", "FALSE END", "failed", "SILENT", "given up"}

func (e end) String() string { return endNames[e] }

// stream measures one stream after the other, as a client sees them: how long they are silent after a fault, at the longest, until the next fault.
// Tokens that were on their way when it happened are no recovery, which is why the first gap is not what counts.
type stream struct {
	mu       sync.Mutex
	kind     string // of the latest fault, if a stream was running then
	since    time.Time
	last     time.Time // when the latest token came; zero before the first
	longest  time.Duration
	silences map[string][]time.Duration // by kind of fault
}

func newStream() *stream { return &stream{silences: map[string][]time.Duration{}} }

// struck notes that a fault happens.
func (s *stream) struck(kind string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last.IsZero() {
		return // nothing that could be interrupted
	}
	s.noteLocked(at)
	s.keepLocked()
	s.kind, s.since = kind, at
}

// token notes that one has come.
func (s *stream) token(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteLocked(at)
	s.last = at
}

// over ends a stream. One that did not go on has shown no recovery.
func (s *stream) over(how end) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if how == complete {
		s.keepLocked()
	}
	s.kind, s.longest, s.last = "", 0, time.Time{}
}

func (s *stream) noteLocked(at time.Time) {
	from := s.last
	if s.since.After(from) {
		from = s.since
	}
	if s.kind != "" {
		s.longest = max(s.longest, at.Sub(from))
	}
}

func (s *stream) keepLocked() {
	if s.kind != "" && s.longest > 0 {
		s.silences[s.kind] = append(s.silences[s.kind], s.longest)
	}
	s.kind, s.longest = "", 0
}

// event is what a server-sent event says.
type event struct {
	Choices []struct {
		IDs    []int   `json:"token_ids"`
		Finish *string `json:"finish_reason"`
	} `json:"choices"`
	Error *struct {
		Message string `json:"message"`
		Code    string `json:"code"`
	} `json:"error"`
}

const maxEvent = 1 << 20

// ask streams one answer and holds it against the undisturbed one, or returns it if there is none yet. why says what no number does.
func ask(ctx context.Context, client *http.Client, url string, r request, want []int, s *stream, patience time.Duration) (got []int, how end, why string) {
	defer func() { s.over(how) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	errSilent := errors.New("no token")
	watch := time.AfterFunc(patience, func() { cancel(errSilent) })
	defer watch.Stop()
	ended := func(err error) (end, string) {
		switch {
		case errors.Is(context.Cause(ctx), errSilent):
			return silent, fmt.Sprintf("no token in %v, after %d", patience, len(got))
		case ctx.Err() != nil:
			return given, ""
		}
		return failed, fmt.Sprintf("after %d tokens: %v", len(got), err)
	}
	body, err := json.Marshal(map[string]any{
		"prompt": r.prompt, "temperature": r.temperature, "seed": r.seed, "max_tokens": r.tokens,
		"ignore_eos": true, "stream": true, "return_token_ids": true,
	})
	if err != nil {
		return nil, failed, err.Error()
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/completions", bytes.NewReader(body))
	if err != nil {
		return nil, failed, err.Error()
	}
	post.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(post)
	if err != nil {
		how, why = ended(err)
		return nil, how, why
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1000))
		how, why = ended(fmt.Errorf("%s: %s", answer.Status, bytes.TrimSpace(text)))
		return nil, how, why
	}
	finished := ""
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue // between events, or a comment that keeps the connection alive
		}
		if string(data) == "[DONE]" {
			switch {
			case len(got) < r.tokens || finished != "length":
				return got, falseEnd, fmt.Sprintf("%d tokens of %d, finish_reason %q", len(got), r.tokens, finished)
			case want != nil && !slices.Equal(got, want):
				return got, different, fmt.Sprintf("%d tokens for %d", len(got), len(want))
			}
			return got, complete, ""
		}
		var e event
		if err := json.Unmarshal(data, &e); err != nil {
			return got, failed, fmt.Sprintf("event %q: %v", data, err)
		}
		if e.Error != nil {
			how, why = ended(fmt.Errorf("%s: %s", e.Error.Code, e.Error.Message))
			return got, how, why
		}
		for _, choice := range e.Choices {
			if len(choice.IDs) > 0 {
				watch.Reset(patience)
				s.token(time.Now())
			}
			got = append(got, choice.IDs...)
			if choice.Finish != nil {
				finished = *choice.Finish
			}
		}
		if n := len(got); want != nil && (n > len(want) || !slices.Equal(got, want[:n])) {
			at := 0
			for at < min(n, len(want)) && got[at] == want[at] {
				at++
			}
			return got, different, fmt.Sprintf("at token %d", at)
		}
	}
	if finished != "" {
		return got, falseEnd, fmt.Sprintf("finish_reason %q without [DONE]", finished)
	}
	how, why = ended(errors.Join(errors.New("the connection ended"), lines.Err()))
	return got, how, why
}
