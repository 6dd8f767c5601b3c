package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/daisy-llm/daisy/coordinator"
	"github.com/daisy-llm/daisy/services/cluster"
)

// Bounds on what a coordinator may send to a client.
const (
	maxStatusBytes = 16 << 20
	maxEventBytes  = 4 << 20
)

// client speaks to a coordinator's HTTP API, as any other client would.
type client struct {
	address string // host:port
	scheme  string // http or https
	trust   clientTrust
	http    *http.Client
}

// newClient takes HOST:PORT, with or without http:// or https:// before it. Where neither says what is meant, only loopback is
// plain: what goes to other machines is not sent in the clear by mistake.
func newClient(address string, t clientTrust) (*client, error) {
	scheme, rest, given := strings.Cut(address, "://")
	if given {
		address = rest
	}
	address = strings.TrimSuffix(address, "/")
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" || strings.ContainsAny(address, "/?#@") || given && scheme != "http" && scheme != "https" {
		return nil, fmt.Errorf("%q is not the address of a coordinator: write it as HOST:PORT", address)
	}
	if host == "" {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	if !given {
		scheme = "https"
		if cluster.IsLoopback(address) {
			scheme = "http"
		}
	}
	// No proxy: the address is a machine of ours. No timeout for the whole: answers take as long as they take.
	transport := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSClientConfig:       t.config(),
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 0,
		MaxIdleConnsPerHost:   2,
	}
	return &client{address: address, scheme: scheme, trust: t, http: &http.Client{Transport: transport}}, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// status asks for a snapshot of the cluster.
func (c *client) status(ctx context.Context) (coordinator.Status, error) {
	var s coordinator.Status
	raw, err := c.rawStatus(ctx)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("ask %s for its status: %w: is it a Daisy coordinator?", c.address, err)
	}
	return s, nil
}

// rawStatus is the snapshot as the coordinator wrote it.
func (c *client) rawStatus(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	res, err := c.send(ctx, http.MethodGet, "/cluster", nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxStatusBytes))
	if err != nil {
		return nil, fmt.Errorf("ask %s for its status: %w", c.address, err)
	}
	return raw, nil
}

// send returns a response of status 200, or an error that says what was wrong.
func (c *client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("write the request for %s: %w", path, err)
		}
		content = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, (&url.URL{Scheme: c.scheme, Host: c.address, Path: path}).String(), content)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.address, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	switch {
	case err == nil && res.StatusCode == http.StatusOK:
		return res, nil
	case err == nil:
		defer res.Body.Close()
		raw, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		if c.scheme == "http" && res.StatusCode == http.StatusBadRequest && bytes.Contains(raw, []byte("HTTPS")) {
			return nil, fmt.Errorf("%s speaks TLS: write https://%s", c.address, c.address)
		}
		return nil, fmt.Errorf("%s answered %s: %s", c.address, res.Status, apiMessage(raw))
	case context.Cause(ctx) != nil && !errors.Is(err, context.DeadlineExceeded):
		return nil, context.Cause(ctx)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("no coordinator listens at %s: start one with `daisy up` or `daisy coordinator`", c.address)
	}
	return nil, fmt.Errorf("reach the coordinator: %w", c.trust.explain(c.address, err))
}

// apiMessage takes the message out of an error in OpenAI's form; anything else is quoted as it is.
func apiMessage(raw []byte) string {
	var e struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(raw, &e) == nil && e.Error.Message != "" {
		return printable(e.Error.Message)
	}
	if len(raw) > 200 {
		raw = raw[:200]
	}
	return printable(strings.TrimSpace(string(raw)))
}

// message is one turn of a conversation.
type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// chatRequest is the body of /v1/chat/completions. Fields left nil are the server's to choose.
type chatRequest struct {
	Model         string        `json:"model"`
	Messages      []message     `json:"messages"`
	Stream        bool          `json:"stream"`
	StreamOptions streamOptions `json:"stream_options"`
	samplingOptions
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// chatFigures is what is known at the end of an answer.
type chatFigures struct {
	PromptTokens    int
	GeneratedTokens int
	Finish          string
	Decode          time.Duration // from the first text to the last
}

// chat streams an answer's text to onText, in pieces that are whole characters.
func (c *client) chat(ctx context.Context, r chatRequest, onText func(string) error) (chatFigures, error) {
	var figures chatFigures
	r.Stream, r.StreamOptions = true, streamOptions{IncludeUsage: true}
	res, err := c.send(ctx, http.MethodPost, "/v1/chat/completions", r)
	if err != nil {
		return figures, err
	}
	defer res.Body.Close()

	var first time.Time
	done := false
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxEventBytes)
	for !done && lines.Scan() {
		data, isData := strings.CutPrefix(lines.Text(), "data:")
		if !isData { // a comment that keeps the connection alive, or the blank line between events
			continue
		}
		data = strings.TrimSpace(data)
		if data == "[DONE]" {
			done = true
			continue
		}
		var chunk chatChunk
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			return figures, fmt.Errorf("read the answer of %s: %w", c.address, err)
		}
		if chunk.Error != nil {
			return figures, fmt.Errorf("the answer broke off: %s", printable(chunk.Error.Message))
		}
		if chunk.Usage != nil {
			figures.PromptTokens, figures.GeneratedTokens = chunk.Usage.PromptTokens, chunk.Usage.CompletionTokens
		}
		for _, choice := range chunk.Choices {
			if choice.FinishReason != "" {
				figures.Finish = choice.FinishReason
			}
			if choice.Delta.Content == "" {
				continue
			}
			if now := time.Now(); first.IsZero() {
				first = now
			} else {
				figures.Decode = now.Sub(first)
			}
			if err := onText(choice.Delta.Content); err != nil {
				return figures, err
			}
		}
	}
	switch {
	case context.Cause(ctx) != nil:
		return figures, context.Cause(ctx)
	case lines.Err() != nil:
		return figures, fmt.Errorf("the answer broke off: %w", lines.Err())
	case !done:
		return figures, errors.New("the answer broke off: the coordinator closed the connection")
	}
	return figures, nil
}

// chatChunk is one event of a streamed answer.
type chatChunk struct {
	Choices []struct {
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
		FinishReason string `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		PromptTokens     int `json:"prompt_tokens"`
		CompletionTokens int `json:"completion_tokens"`
	} `json:"usage"`
	Error *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// rate is the speed of generation in tokens a second. The first token is the prompt's work, so it is not counted.
func (f chatFigures) rate() float64 {
	if f.GeneratedTokens < 2 || f.Decode <= 0 {
		return 0
	}
	return float64(f.GeneratedTokens-1) / f.Decode.Seconds()
}
