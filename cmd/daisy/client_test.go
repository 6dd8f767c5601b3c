package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// serve answers every request with one status and body, and hands the request's body over.
func serve(t *testing.T, status int, body string, got *string) *client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		if got != nil {
			*got = string(raw)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	c, err := newClient(s.URL, clientTrust{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func chunk(text string) string {
	quoted, _ := json.Marshal(text)
	return fmt.Sprintf("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%s},\"finish_reason\":null}]}\n\n", quoted)
}

func TestChat(t *testing.T) {
	const usage = `data: {"choices":[],"usage":{"prompt_tokens":42,"completion_tokens":3}}` + "\n\n"
	const stop = `data: {"choices":[{"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	for name, test := range map[string]struct {
		status int
		body   string
		text   string
		err    string
	}{
		"an answer":       {200, `data: {"choices":[{"delta":{"role":"assistant","content":""}}]}` + "\n\n" + chunk("一朵") + ": keep-alive\n\n" + chunk("雏菊🌼") + stop + usage + "data: [DONE]\n\n", "一朵雏菊🌼", ""},
		"windows lines":   {200, strings.ReplaceAll(chunk("a")+stop+usage+"data: [DONE]\n\n", "\n", "\r\n"), "a", ""},
		"no blank":        {200, "data:" + strings.TrimPrefix(chunk("a"), "data: ") + usage + "data:[DONE]\n\n", "a", ""},
		"an error":        {503, `{"error":{"message":"the cluster is not ready","type":"server_error"}}`, "", "503 Service Unavailable: the cluster is not ready"},
		"another error":   {502, "<html>bad\x1b[2J gateway", "", "502 Bad Gateway: <html>bad[2J gateway"},
		"error midway":    {200, chunk("a") + `data: {"error":{"message":"a shard was lost"}}` + "\n\n", "a", "the answer broke off: a shard was lost"},
		"end midway":      {200, chunk("a"), "a", "the answer broke off"},
		"not JSON":        {200, "data: {{\n\n", "", "read the answer of"},
		"an endless line": {200, "data: " + strings.Repeat("a", maxEventBytes+1), "", "the answer broke off"},
	} {
		t.Run(name, func(t *testing.T) {
			var body string
			c := serve(t, test.status, test.body, &body)
			var text strings.Builder
			temperature := 0.5
			r := chatRequest{Model: "m", Messages: []message{{"user", "hi"}}, samplingOptions: samplingOptions{Temperature: &temperature}}
			figures, err := c.chat(t.Context(), r, func(s string) error { text.WriteString(s); return nil })
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if text.String() != test.text {
				t.Errorf("text %q, want %q", text.String(), test.text)
			}
			if test.err == "" && (figures.PromptTokens != 42 || figures.GeneratedTokens != 3) {
				t.Errorf("figures %+v", figures)
			}
			const want = `{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true},"temperature":0.5}`
			if body != want {
				t.Errorf("sent %s\nwant %s", body, want)
			}
		})
	}
}

func TestChatStopsWhereItsReaderDoes(t *testing.T) {
	c := serve(t, 200, chunk("a")+chunk("b"), nil)
	full := errors.New("the disk is full")
	if _, err := c.chat(t.Context(), chatRequest{}, func(string) error { return full }); !errors.Is(err, full) {
		t.Errorf("error %v, want %v", err, full)
	}
}

func TestChatReturnsTheCauseOfItsEnd(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, chunk("a"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer s.Close()
	c, _ := newClient(s.URL, clientTrust{})
	defer c.close()
	_, err := c.chat(ctx, chatRequest{}, func(string) error { cancel(errInterrupted); return nil })
	if !errors.Is(err, errInterrupted) {
		t.Errorf("error %v, want %v", err, errInterrupted)
	}
}

func TestClientAddress(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:8080": "127.0.0.1:8080", "http://host:80/": "host:80", ":8080": "127.0.0.1:8080", "[::1]:1": "[::1]:1",
	} {
		if c, err := newClient(in, clientTrust{}); err != nil || c.address != want {
			t.Errorf("newClient(%q) = %+v, %v; want %s", in, c, err, want)
		}
	}
	for _, in := range []string{"", "host", "host:", "ftp://host:1", "host:1/v1", "user@host:1"} {
		if c, err := newClient(in, clientTrust{}); err == nil {
			t.Errorf("newClient(%q) = %s, want an error", in, c.address)
		}
	}
}

func TestRate(t *testing.T) {
	for _, test := range []struct {
		f    chatFigures
		want float64
	}{
		{chatFigures{GeneratedTokens: 101, Decode: time.Second / 2}, 200},
		{chatFigures{GeneratedTokens: 1, Decode: time.Second}, 0},
		{chatFigures{GeneratedTokens: 9}, 0},
	} {
		if got := test.f.rate(); got != test.want {
			t.Errorf("%+v: %v tokens/s, want %v", test.f, got, test.want)
		}
	}
}
