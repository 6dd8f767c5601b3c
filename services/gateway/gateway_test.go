package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/daisy-llm/daisy/coordinator"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/model/tokenizer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// byteTokenizer has a token for each byte, then control tokens.
type byteTokenizer struct{ begins bool }

const (
	bos token.ID = 256 + iota
	imStart
	imEnd
	byteVocabulary = 256 + iota
)

var controls = []string{"<s>", "<|im_start|>", "<|im_end|>"}

func (byteTokenizer) Encode(text string, o tokenizer.Options) []token.ID {
	var list []token.ID
	if o.AddSpecial {
		list = append(list, bos)
	}
next:
	for i := 0; i < len(text); {
		for n, name := range controls {
			if o.ParseSpecial && strings.HasPrefix(text[i:], name) {
				list = append(list, bos+token.ID(n))
				i += len(name)
				continue next
			}
		}
		list = append(list, token.ID(text[i]))
		i++
	}
	return list
}

func (t byteTokenizer) Decode(list []token.ID, special bool) string {
	var b []byte
	for _, id := range list {
		if special || !t.IsControl(id) {
			b = append(b, t.Piece(id)...)
		}
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

func (t byteTokenizer) Piece(id token.ID) []byte {
	if t.IsControl(id) {
		return []byte(controls[id-bos])
	}
	return []byte{byte(id)}
}

func (byteTokenizer) IsControl(id token.ID) bool { return id >= bos }
func (byteTokenizer) Size() int                  { return byteVocabulary }
func (t byteTokenizer) AddsBOS() bool            { return t.begins }
func (byteTokenizer) BOS() (token.ID, bool)      { return bos, true }

// scripted is an Engine that does as it is told and remembers what it was asked.
type scripted struct {
	generate func(ctx context.Context, req coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error)
	status   coordinator.Status
	waiting  bool

	mu       sync.Mutex
	requests []coordinator.Request
}

func (s *scripted) Generate(ctx context.Context, req coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error) {
	s.mu.Lock()
	s.requests = append(s.requests, req)
	s.mu.Unlock()
	return s.generate(ctx, req, emit)
}

func (s *scripted) Ready() bool { return !s.waiting }

func (s *scripted) Status() coordinator.Status {
	status := s.status
	if status.State == "" {
		status.State = "ready"
	}
	return status
}

// asked gives the requests so far, in the order of their choice.
func (s *scripted) asked() []coordinator.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.requests)
	slices.SortFunc(list, func(a, b coordinator.Request) int { return int(a.Sampling.Choice) - int(b.Sampling.Choice) })
	return list
}

// say answers every request with a text, a token for each byte, holding text back inside a character.
func say(answer string) *scripted {
	return &scripted{generate: func(ctx context.Context, req coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error) {
		return utter(ctx, req, emit, answer)
	}}
}

func utter(ctx context.Context, req coordinator.Request, emit func(coordinator.Delta) error, answer string) (coordinator.Answer, error) {
	finish := coordinator.Answer{Finish: coordinator.FinishStop, PromptTokens: len(req.Prompt),
		CachedTokens: max(0, len(req.Prompt)/2-int(req.Sampling.Choice))}
	if req.MaxTokens > 0 && len(answer) > req.MaxTokens {
		answer, finish.Finish = answer[:req.MaxTokens], coordinator.FinishLength
	}
	var held []byte
	for i := range len(answer) {
		d := coordinator.Delta{IDs: []token.ID{token.ID(answer[i])}}
		held = append(held, answer[i])
		if utf8.Valid(held) {
			d.Text, held = string(held), nil
		}
		if req.Logprobs {
			c := sample.Choice{Alternative: sample.Alternative{Token: token.ID(answer[i]), Logprob: -0.5}}
			for n := range req.Top {
				c.Top = append(c.Top, sample.Alternative{Token: token.ID((int(answer[i]) + n) % 256), Logprob: -0.5 - float32(n)})
			}
			d.Logprobs = []sample.Choice{c}
		}
		if err := emit(d); err != nil {
			return coordinator.Answer{}, err
		}
		finish.GeneratedTokens++
		if ctx.Err() != nil {
			return coordinator.Answer{}, ctx.Err()
		}
	}
	return finish, nil
}

// start serves a Gateway around an engine.
func start(t *testing.T, e Engine, change ...func(*Config)) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(build(t, e, change...).Handler())
	t.Cleanup(s.Close)
	return s
}

func build(t testing.TB, e Engine, change ...func(*Config)) *Gateway {
	t.Helper()
	cfg := Config{
		Engine: e, Tokenizer: byteTokenizer{}, Template: turns{}, ModelName: "daisy-test", Aliases: []string{"default"},
		Context: 64, Created: time.Unix(1700000000, 0), KeepAlive: time.Hour,
	}
	for _, f := range change {
		f(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// post sends a body and gives what came back.
func post(t *testing.T, url, body string) (*http.Response, []byte) {
	t.Helper()
	return do(t, http.MethodPost, url, body, nil)
}

func do(t *testing.T, method, url, body string, header map[string]string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		if k == "Host" {
			req.Host = v
		}
		req.Header.Set(k, v)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil && err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	return res, got
}

// failure is an error answer.
type failure struct {
	Error struct {
		Message string
		Type    string
		Param   *string
		Code    *string
	}
}

func readFailure(t *testing.T, body []byte) failure {
	t.Helper()
	var f failure
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil || f.Error.Message == "" || f.Error.Type == "" || f.Error.Code == nil {
		t.Fatalf("not an error in OpenAI's form (%v): %s", err, body)
	}
	return f
}
