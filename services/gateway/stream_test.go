package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daisy-llm/daisy/coordinator"
	"github.com/daisy-llm/daisy/model/token"
)

// settle replaces what differs from run to run.
func settle(b []byte) []byte {
	b = regexp.MustCompile(`"id":"(\w+)-[0-9a-f]{24}"`).ReplaceAll(b, []byte(`"id":"$1-ID"`))
	b = regexp.MustCompile(`"created":\d+`).ReplaceAll(b, []byte(`"created":0`))
	return regexp.MustCompile(`"fp_[0-9a-f]{12}"`).ReplaceAll(b, []byte(`"fp_X"`))
}

// The bytes that streams are made of. Set DAISY_GOLDEN=write to write them anew.
func TestGoldenBytes(t *testing.T) {
	stopped := &scripted{generate: func(_ context.Context, req coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error) {
		for _, d := range []coordinator.Delta{
			{IDs: []token.ID{'a', 'b'}, Text: "ab"}, {IDs: []token.ID{0xc3}}, {IDs: []token.ID{0xa9, 'S'}, Text: "é"}, {IDs: []token.ID{'T'}},
		} {
			if err := emit(d); err != nil {
				return coordinator.Answer{}, err
			}
		}
		return coordinator.Answer{Finish: coordinator.FinishStop, Stop: "ST", PromptTokens: len(req.Prompt), GeneratedTokens: 6}, nil
	}}
	for _, c := range []struct {
		name, path, body string
		engine           Engine
	}{
		{"chat", "/v1/chat/completions", with(`"max_tokens":5`), say("<Grüße>")},
		{"chat-stream", "/v1/chat/completions", with(`"stream":true,"max_tokens":5`), say("<Grüße>")},
		{"chat-stream-usage", "/v1/chat/completions", with(`"stream":true,"stream_options":{"include_usage":true}`), say("é")},
		{"chat-stream-ids", "/v1/chat/completions", with(`"stream":true,"return_token_ids":true,"stop":"ST"`), stopped},
		{"chat-stream-logprobs", "/v1/chat/completions", with(`"stream":true,"logprobs":true,"top_logprobs":1`), say("é")},
		{"chat-stream-nothing", "/v1/chat/completions", with(`"stream":true`), say("")},
		{"completions", "/v1/completions", prompted(`"stop":["ST"]`), stopped},
		{"completions-logprobs", "/v1/completions", prompted(`"logprobs":1`), say("é")},
		{"completions-stream", "/v1/completions", prompted(`"stream":true,"stop":["ST"]`), stopped},
		{"completions-stream-ids", "/v1/completions", prompted(`"stream":true,"return_token_ids":true,"stream_options":{"include_usage":true}`), say("é!")},
		{"completions-stream-echo", "/v1/completions", prompted(`"stream":true,"echo":true`), say("")},
		{"completions-stream-logprobs", "/v1/completions", prompted(`"stream":true,"logprobs":0`), say("é")},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, got := post(t, start(t, c.engine).URL+c.path, c.body)
			if res.StatusCode != 200 {
				t.Fatalf("%d %s", res.StatusCode, got)
			}
			streams := strings.Contains(c.name, "stream")
			if kind := res.Header.Get("Content-Type"); strings.HasPrefix(kind, "text/event-stream") != streams || streams && res.Header.Get("X-Accel-Buffering") != "no" {
				t.Errorf("headers %v", res.Header)
			}
			got = settle(got)
			file := filepath.Join("testdata", c.name+".golden")
			if os.Getenv("DAISY_GOLDEN") == "write" {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// A generation that fails after its first token must not look finished: an error event, no [DONE], and a cut connection.
func TestFailureInTheMiddle(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error": func() error { return fmt.Errorf("stage 2: %w", coordinator.ErrLost) },
		"panic": func() error { panic("a bug") },
	} {
		t.Run(name, func(t *testing.T) {
			engine := &scripted{generate: func(ctx context.Context, req coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error) {
				if err := emit(coordinator.Delta{IDs: []token.ID{'a'}, Text: "a"}); err != nil {
					return coordinator.Answer{}, err
				}
				return coordinator.Answer{}, fail()
			}}
			s := start(t, engine)
			res, err := http.Post(s.URL+"/v1/chat/completions", "application/json", strings.NewReader(with(`"stream":true`)))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			got, err := io.ReadAll(res.Body)
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the stream ends with %v", err)
			}
			if res.StatusCode != 200 || bytes.Contains(got, []byte("[DONE]")) || !bytes.Contains(got, []byte(`"content":"a"`)) {
				t.Errorf("%d %s", res.StatusCode, got)
			}
			events := strings.Split(strings.TrimSpace(string(got)), "\n\n")
			f := readFailure(t, []byte(strings.TrimPrefix(events[len(events)-1], "data: ")))
			if want := map[string]string{"error": "shard_lost", "panic": "internal_error"}[name]; *f.Error.Code != want {
				t.Errorf("%+v", f)
			}
			c := client(t, engine)
			stream := c.Chat.Completions.NewStreaming(t.Context(), question("hi"))
			for stream.Next() {
			}
			if stream.Err() == nil {
				t.Error("the client took a broken stream for a whole one")
			}
		})
	}
}

// recorder is a ResponseWriter without a connection, so that time can be the test's.
func record(g *Gateway, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "http://localhost"+path, strings.NewReader(body))
	g.Handler().ServeHTTP(w, r)
	return w
}

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := &scripted{generate: func(ctx context.Context, req coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error) {
			time.Sleep(5 * time.Second)
			if err := emit(coordinator.Delta{IDs: []token.ID{'a'}, Text: "a"}); err != nil {
				return coordinator.Answer{}, err
			}
			time.Sleep(3 * time.Second)
			return coordinator.Answer{Finish: coordinator.FinishStop}, nil
		}}
		g := build(t, engine, func(c *Config) { c.KeepAlive = 2 * time.Second })
		got := string(settle(record(g, "/v1/completions", prompted(`"stream":true`)).Body.Bytes()))
		const wait = ": keep-alive\n\n"
		if !strings.HasPrefix(got, wait+wait+"data: {") || strings.Count(got, wait) != 3 || !strings.Contains(got, "}\n\n"+wait+"data: {") ||
			!strings.HasSuffix(got, "data: [DONE]\n\n") {
			t.Errorf("%s", got)
		}
		// A request that is not streamed is not commented on.
		if got := record(g, "/v1/completions", prompted(`"stream":false`)).Body.String(); !strings.HasPrefix(got, "{") {
			t.Errorf("%s", got)
		}
	})
}

// A failure while only comments have been sent comes too late for a status, and is an event.
func TestFailureAfterKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := &scripted{generate: func(context.Context, coordinator.Request, func(coordinator.Delta) error) (coordinator.Answer, error) {
			time.Sleep(3 * time.Second)
			return coordinator.Answer{}, coordinator.ErrNotReady
		}}
		g := build(t, engine, func(c *Config) { c.KeepAlive = 2 * time.Second })
		w := httptest.NewRecorder()
		defer func() {
			if cause := recover(); cause != http.ErrAbortHandler {
				t.Errorf("the handler ended with %v", cause)
			}
			if got := w.Body.String(); !strings.Contains(got, `data: {"error":`) || strings.Contains(got, "[DONE]") {
				t.Errorf("%s", got)
			}
		}()
		g.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "http://localhost/v1/completions", strings.NewReader(prompted(`"stream":true`))))
	})
}

// While there is no pipeline, a stream that has not begun is not kept alive: it may end as a request that never started, and
// must have that status then. One that has begun is, whatever becomes of the pipeline.
func TestNoCommentsBeforeThereIsAPipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := &scripted{waiting: true, status: coordinator.Status{State: coordinator.StateRecovering}}
		engine.generate = func(context.Context, coordinator.Request, func(coordinator.Delta) error) (coordinator.Answer, error) {
			time.Sleep(time.Minute)
			return coordinator.Answer{}, coordinator.ErrNotReady
		}
		g := build(t, engine, func(c *Config) { c.KeepAlive = time.Second })
		w := record(g, "/v1/completions", prompted(`"stream":true`))
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "keep-alive") {
			t.Errorf("not begun: %d %v %s", w.Code, w.Header(), w.Body)
		}
		engine.generate = func(_ context.Context, _ coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error) {
			if err := emit(coordinator.Delta{IDs: []token.ID{'a'}, Text: "a"}); err != nil {
				return coordinator.Answer{}, err
			}
			time.Sleep(2500 * time.Millisecond)
			return coordinator.Answer{Finish: coordinator.FinishStop}, nil
		}
		w = record(g, "/v1/completions", prompted(`"stream":true`))
		if got := w.Body.String(); w.Code != http.StatusOK || strings.Count(got, ": keep-alive\n\n") != 2 {
			t.Errorf("begun: %d %s", w.Code, got)
		}
	})
}

// A client that connects but does not read loses its generation after WriteTimeout.
func TestClientThatDoesNotRead(t *testing.T) {
	ended := make(chan error, 1)
	engine := &scripted{generate: func(ctx context.Context, _ coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error) {
		for {
			if err := emit(coordinator.Delta{Text: strings.Repeat("x", 1<<16)}); err != nil {
				ended <- err
				return coordinator.Answer{}, err
			}
		}
	}}
	s := start(t, engine, func(c *Config) { c.WriteTimeout = 50 * time.Millisecond })
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := prompted(`"stream":true`)
	fmt.Fprintf(conn, "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the generation waits for its client for ever")
	}
}

// The deadlines of one request must not reach the next on its connection.
func TestDeadlinesEndWithTheirRequest(t *testing.T) {
	const timeout = 50 * time.Millisecond
	release := make(chan struct{})
	engine := &scripted{generate: func(ctx context.Context, req coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error) {
		select {
		case <-release:
		case <-ctx.Done():
			return coordinator.Answer{}, ctx.Err()
		}
		return utter(ctx, req, emit, "ok")
	}}
	s := start(t, engine, func(c *Config) { c.WriteTimeout, c.BodyTimeout = timeout, timeout })
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for range 2 {
		body := prompted(`"stream":true`)
		fmt.Fprintf(conn, "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		go func() {
			<-time.After(3 * timeout) // past both deadlines, with the request still running
			release <- struct{}{}
		}()
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		if err != nil || !bytes.HasSuffix(got, []byte("data: [DONE]\n\n")) {
			t.Errorf("%v %s", err, got)
		}
	}
}

// A server that stops cancels requests whose clients are still there: they must not take what they have for all there is.
func TestServerThatStops(t *testing.T) {
	for range 20 {
		base, stop := context.WithCancelCause(t.Context())
		engine := &scripted{generate: func(ctx context.Context, _ coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error) {
			if err := emit(coordinator.Delta{IDs: []token.ID{'a'}, Text: "a"}); err != nil {
				return coordinator.Answer{}, err
			}
			stop(errors.New("the server stops"))
			<-ctx.Done()
			return coordinator.Answer{}, coordinator.ErrLost // as a pipeline that ends with its coordinator
		}}
		var log bytes.Buffer
		g := build(t, engine, func(c *Config) {
			c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		})
		s := httptest.NewUnstartedServer(g.Handler())
		s.Config.BaseContext = func(net.Listener) context.Context { return base }
		s.Start()
		_, got := post(t, s.URL+"/v1/completions", prompted(`"stream":true`))
		s.Close()
		if !bytes.Contains(got, []byte(`data: {"error":{"message":"The server is shutting down."`)) || bytes.Contains(got, []byte("[DONE]")) {
			t.Fatalf("%s", got)
		}
		if log.Len() > 0 {
			t.Fatalf("a server that stops warns of it: %s", &log)
		}
	}
}

// A body that trickles in ends with its time.
func TestSlowBody(t *testing.T) {
	s := start(t, say("ok"), func(c *Config) { c.BodyTimeout = 50 * time.Millisecond })
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, _ := io.ReadAll(res.Body)
	if f := readFailure(t, got); res.StatusCode != 408 || *f.Error.Code != "request_timeout" {
		t.Errorf("%d %s", res.StatusCode, got)
	}
}
