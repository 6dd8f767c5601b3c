package gateway

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/daisy-llm/daisy/coordinator"
)

func TestOrigins(t *testing.T) {
	for _, c := range []struct {
		name           string
		host, origin   string
		origins, hosts []string
		local          string // address that the connection came to
		status         int
		code           string
		allowed        string // Access-Control-Allow-Origin
	}{
		{name: "a program", host: "localhost:8080", status: 200},
		{name: "a program, by address", host: "127.0.0.1:8080", status: 200},
		{name: "a program, by IPv6", host: "[::1]:8080", status: 200},
		{name: "without a port", host: "localhost", status: 200},
		{name: "capitals", host: "LocalHost:8080", status: 200},
		{name: "a page served here", host: "localhost:8080", origin: "http://localhost:8080", status: 200},
		{name: "a page served here, through TLS", host: "127.0.0.1:8080", origin: "https://127.0.0.1:8080", status: 200},
		{name: "a foreign page", host: "localhost:8080", origin: "https://evil.example", status: 403, code: "origin_not_allowed"},
		{name: "another port", host: "localhost:8080", origin: "http://localhost:3000", status: 403, code: "origin_not_allowed"},
		{name: "a sandboxed page", host: "localhost:8080", origin: "null", status: 403, code: "origin_not_allowed"},
		{name: "no URL", host: "localhost:8080", origin: "http://%zz", status: 403, code: "origin_not_allowed"},
		{name: "a rebound name", host: "evil.example:8080", status: 403, code: "host_not_allowed"},
		{name: "a rebound name, same origin", host: "evil.example:8080", origin: "http://evil.example:8080", status: 403, code: "host_not_allowed"},
		{name: "a name that only looks local", host: "localhost.evil.example", status: 403, code: "host_not_allowed"},
		{name: "an allowed page", host: "localhost:8080", origin: "https://app.example", origins: []string{"https://app.example"}, status: 200, allowed: "https://app.example"},
		{name: "a page beside an allowed one", host: "localhost:8080", origin: "https://app.example.evil", origins: []string{"https://app.example"}, status: 403, code: "origin_not_allowed"},
		{name: "any page", host: "localhost:8080", origin: "https://evil.example", origins: []string{"*"}, status: 200, allowed: "https://evil.example"},
		{name: "an allowed name", host: "daisy.lan:8080", hosts: []string{"daisy.lan"}, status: 200},
		{name: "a name in a network", host: "box.lan:8080", local: "192.168.1.5", status: 200},
		{name: "a name in a network that names its own", host: "evil.example", hosts: []string{"daisy.lan"}, local: "192.168.1.5", status: 403, code: "host_not_allowed"},
		{name: "a foreign page in a network", host: "box.lan:8080", origin: "https://evil.example", local: "192.168.1.5", status: 403, code: "origin_not_allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := build(t, say("ok"), func(cfg *Config) { cfg.AllowedOrigins, cfg.AllowedHosts = c.origins, c.hosts })
			if c.local == "" {
				c.local = "127.0.0.1"
			}
			for _, path := range []string{"/v1/models", "/cluster", "/nothing"} {
				r := httptest.NewRequest(http.MethodGet, path, nil)
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP(c.local)}))
				r.Host = c.host
				if c.origin != "" {
					r.Header.Set("Origin", c.origin)
				}
				w := httptest.NewRecorder()
				g.Handler().ServeHTTP(w, r)
				want := c.status
				if path == "/nothing" && want == 200 {
					want = 404
				}
				if w.Code != want || w.Header().Get("Access-Control-Allow-Origin") != c.allowed {
					t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
				}
				if c.code != "" && *readFailure(t, w.Body.Bytes()).Error.Code != c.code {
					t.Errorf("%s", w.Body)
				}
			}
		})
	}
}

func TestPreflight(t *testing.T) {
	s := start(t, say("ok"), func(c *Config) { c.AllowedOrigins = []string{"https://app.example"} })
	ask := map[string]string{"Origin": "https://app.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
	res, _ := do(t, http.MethodOptions, s.URL+"/v1/chat/completions", "", ask)
	if res.StatusCode != 204 || res.Header.Get("Access-Control-Allow-Methods") != "POST, OPTIONS" || res.Header.Get("Access-Control-Allow-Headers") != "authorization,content-type" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	ask["Origin"] = "https://evil.example"
	if res, _ := do(t, http.MethodOptions, s.URL+"/v1/chat/completions", "", ask); res.StatusCode != 403 {
		t.Errorf("%d", res.StatusCode)
	}
}

func TestPathsAndMethods(t *testing.T) {
	s := start(t, say("ok"))
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/v1/chat/completions", 405, "POST, OPTIONS"},
		{"DELETE", "/v1/completions", 405, "POST, OPTIONS"},
		{"POST", "/v1/models", 405, "GET, HEAD, OPTIONS"},
		{"DELETE", "/v1/models/daisy-test", 405, "GET, HEAD, OPTIONS"},
		{"POST", "/healthz", 405, "GET, HEAD, OPTIONS"},
		{"BREW", "/cluster", 405, "GET, HEAD, OPTIONS"},
		{"GET", "/", 404, ""},
		{"GET", "/v1", 404, ""},
		{"POST", "/v1/embeddings", 404, ""},
		{"GET", "/v1/models/nobody", 404, ""},
	} {
		res, body := do(t, c.method, s.URL+c.path, "", nil)
		if readFailure(t, body); res.StatusCode != c.status || res.Header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %d %v %s", c.method, c.path, res.StatusCode, res.Header, body)
		}
	}
	if res, body := do(t, http.MethodHead, s.URL+"/v1/models", "", nil); res.StatusCode != 200 || len(body) != 0 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestReadiness(t *testing.T) {
	engine := say("ok")
	engine.waiting = true
	engine.status = coordinator.Status{State: "waiting", Detail: "1 of 2 shards has joined", SHA256: "abc", Layers: 30}
	s := start(t, engine)
	if res, body := do(t, "GET", s.URL+"/readyz", "", nil); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" ||
		string(body) != `{"ready":false,"state":"waiting","detail":"1 of 2 shards has joined"}` {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if res, _ := do(t, "GET", s.URL+"/healthz", "", nil); res.StatusCode != 200 {
		t.Errorf("%d", res.StatusCode)
	}
	res, body := post(t, s.URL+"/v1/chat/completions", with(`"n":1`))
	if f := readFailure(t, body); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !strings.Contains(f.Error.Message, "1 of 2 shards") || f.Error.Type != "service_unavailable_error" {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	// What is wrong with a request is said all the same.
	if res, _ := post(t, s.URL+"/v1/chat/completions", with(`"n":0`)); res.StatusCode != 400 {
		t.Errorf("%d", res.StatusCode)
	}
	res, body = do(t, "GET", s.URL+"/cluster", "", nil)
	var status coordinator.Status
	if err := json.Unmarshal(body, &status); err != nil || res.StatusCode != 200 || status.Detail != engine.status.Detail || status.Layers != 30 || status.Shards == nil {
		t.Errorf("%v %s", err, body)
	}
	engine = say("ok")
	s = start(t, engine)
	if res, _ := do(t, "GET", s.URL+"/readyz", "", nil); res.StatusCode != 200 {
		t.Errorf("%d", res.StatusCode)
	}
}

func TestBusy(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	engine := &scripted{generate: func(context.Context, coordinator.Request, func(coordinator.Delta) error) (coordinator.Answer, error) {
		entered <- struct{}{}
		<-release
		return coordinator.Answer{Finish: coordinator.FinishStop}, nil
	}}
	s := start(t, engine, func(c *Config) { c.MaxRequests = 1 })
	done := make(chan int)
	go func() {
		res, _ := post(t, s.URL+"/v1/completions", prompted(`"n":1`))
		done <- res.StatusCode
	}()
	<-entered
	res, body := post(t, s.URL+"/v1/completions", prompted(`"n":1`))
	if f := readFailure(t, body); res.StatusCode != 429 || res.Header.Get("Retry-After") == "" || *f.Error.Code != "rate_limit_exceeded" {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	close(release)
	if status := <-done; status != 200 {
		t.Errorf("%d", status)
	}
}

// A bug in a handler costs one request, not the process.
func TestPanic(t *testing.T) {
	engine := say("ok")
	g := build(t, engine)
	s := httptest.NewServer(g.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			_, _ = w.Write([]byte("half"))
			_ = http.NewResponseController(w).Flush()
		}
		panic("a bug")
	})))
	defer s.Close()
	res, body := do(t, "GET", s.URL, "", nil)
	if f := readFailure(t, body); res.StatusCode != 500 || f.Error.Type != "server_error" || strings.Contains(f.Error.Message, "bug") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if _, body := do(t, "GET", s.URL+"/late", "", nil); string(body) != "half" {
		t.Errorf("%s", body)
	}
	engine.generate = func(context.Context, coordinator.Request, func(coordinator.Delta) error) (coordinator.Answer, error) {
		panic("a bug")
	}
	api := start(t, engine)
	for range 2 {
		if res, body := post(t, api.URL+"/v1/completions", prompted(`"n":2`)); res.StatusCode != 500 {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
}

// The trace that a client began goes on into the engine, and its id comes back.
func TestTrace(t *testing.T) {
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	var seen string
	engine := &scripted{generate: func(ctx context.Context, req coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error) {
		seen = trace.SpanContextFromContext(ctx).TraceID().String()
		return utter(ctx, req, emit, "ok")
	}}
	s := start(t, engine)
	res, _ := do(t, "POST", s.URL+"/v1/completions", prompted(`"n":1`), map[string]string{"Traceparent": "00-" + id + "-00f067aa0ba902b7-01"})
	if seen != id || res.Header.Get("X-Trace-Id") != id || len(res.Header.Get("X-Request-Id")) != 24 {
		t.Errorf("engine saw %q, headers %v", seen, res.Header)
	}
}

func TestConfig(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no engine": func(c *Config) { c.Engine = nil }, "no tokenizer": func(c *Config) { c.Tokenizer = nil }, "no name": func(c *Config) { c.ModelName = "" },
		"no context": func(c *Config) { c.Context = 1 }, "negative time": func(c *Config) { c.KeepAlive = -1 }, "negative number": func(c *Config) { c.MaxChoices = -1 },
		"negative size": func(c *Config) { c.MaxBodyBytes = -1 },
	} {
		cfg := Config{Engine: say(""), Tokenizer: byteTokenizer{}, ModelName: "m", Context: 8}
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.HasPrefix(err.Error(), "gateway: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
