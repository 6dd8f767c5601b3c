package catalogue

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// server serves one file and records the requests; what it does wrong is set by the test, per request from 0.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	data     []byte
	tag      string
	requests []http.Header
	before   func(n int, w http.ResponseWriter, r *http.Request) (handled bool)
	cutAfter func(n int) int // bytes after which the connection breaks; 0: never
}

func serve(t *testing.T, data []byte) *server {
	t.Helper()
	s := &server{data: data, tag: `"one"`}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	n := len(s.requests)
	s.requests = append(s.requests, r.Header.Clone())
	before := s.before
	s.mu.Unlock()
	if before != nil && before(n, w, r) {
		return
	}
	if s.tag != "" {
		w.Header().Set("ETag", s.tag)
	}
	if s.cutAfter != nil {
		if cut := s.cutAfter(n); cut > 0 {
			w = &cutWriter{ResponseWriter: w, left: cut}
		}
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(s.data)))
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// ranges lists the Range headers received.
func (s *server) ranges() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.requests {
		list = append(list, h.Get("Range"))
	}
	return list
}

func wantRanges(t *testing.T, s *server, want ...string) {
	t.Helper()
	if got := s.ranges(); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("ranges %q, want %q", got, want)
	}
}

type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(b []byte) (int, error) {
	if len(b) > c.left {
		_, _ = c.ResponseWriter.Write(b[:c.left])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(b)
	return c.ResponseWriter.Write(b)
}

func first(n int) func(int) int {
	return func(request int) int {
		if request == 0 {
			return n
		}
		return 0
	}
}

func TestDownload(t *testing.T) {
	data := content(600_000)
	web := serve(t, data)
	s := newStore(t, Config{}, data, web.URL+"/x.gguf")
	var progress notes
	for range 3 {
		if local := mustResolve(t, s, "m", &progress, data); local.Name != "m" {
			t.Errorf("called %q", local.Name)
		}
	}
	if web.count() != 1 {
		t.Errorf("%d requests", web.count())
	}
	progress.want(t, "fetching M from http://")
	if progress.done != 600_000 || progress.total != 600_000 {
		t.Errorf("progress ended at %d of %d", progress.done, progress.total)
	}
	wantModels(t, s, finalName(data))
	if path, ok := s.Has(sumOf(data)); !ok || filepath.Base(path) != finalName(data) {
		t.Errorf("the cache does not say that it has the file: %q", path)
	}
	// Named by its source, the same file is found again by what the catalogue knows.
	if local := mustResolve(t, s, web.URL+"/x.gguf", nil, data); local.Name != "m" || web.count() != 1 {
		t.Errorf("%+v after %d requests", local, web.count())
	}
}

func TestDownloadWithoutHash(t *testing.T) {
	data := tinyModel(t)
	web := serve(t, data)
	s := newStore(t, Config{}, nil)
	for range 2 {
		if local := mustResolve(t, s, web.URL+"/some-model.gguf?download=1", nil, data); local.Name != "some-model" {
			t.Errorf("called %q", local.Name)
		}
	}
	if web.count() != 1 {
		t.Errorf("%d requests", web.count())
	}
	mustResolve(t, s, web.URL+"/same-elsewhere.gguf", nil, data)
	wantModels(t, s, finalName(data))
}

func TestHub(t *testing.T) {
	data := content(5000)
	elsewhere := serve(t, data)
	hub := serve(t, nil)
	var path string
	hub.before = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		path = r.URL.EscapedPath()
		http.Redirect(w, r, elsewhere.URL+"/blob?signature=secret", http.StatusFound)
		return true
	}
	s := newStore(t, Config{HFEndpoint: hub.URL + "/mirror/", HFToken: "token"}, data, "hf:org/repo@v1/sub/a file.gguf")
	mustResolve(t, s, "m", nil, data)
	if path != "/mirror/org/repo/resolve/v1/sub/a%20file.gguf" {
		t.Errorf("asked for %s", path)
	}
	if got := hub.requests[0].Get("Authorization"); got != "Bearer token" {
		t.Errorf("the hub got %q", got)
	}
	if got := elsewhere.requests[0].Get("Authorization"); got != "" {
		t.Errorf("another host got %q", got)
	}

	// Errors after a redirect must not spread its signature; refusals point to the token.
	elsewhere.Close()
	s = newStore(t, Config{HFEndpoint: hub.URL}, data, "hf:org/repo@v1/x.gguf")
	if err := mustFail(t, s, "m", nil, "hf:org/repo@v1/x.gguf"); strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
	hub.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	mustFail(t, s, "m", nil, "401", "HF_TOKEN")
}

func TestRedirects(t *testing.T) {
	plain := serve(t, tinyModel(t))
	var target string
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target, http.StatusFound)
	}))
	defer secure.Close()
	s := newStore(t, Config{}, nil)
	s.client.Transport = secure.Client().Transport
	defer s.client.CloseIdleConnections()
	target = plain.URL
	mustFail(t, s, secure.URL+"/x", nil, "redirects away from https")
	target = secure.URL + "/again"
	mustFail(t, s, secure.URL+"/x", nil, "more than 10 redirects")
}

func TestWrongHash(t *testing.T) {
	data, other := content(50_000), make([]byte, 50_000)
	web := serve(t, other)
	s := newStore(t, Config{}, data, web.URL+"/x.gguf")
	if err := mustFail(t, s, "m", nil, sumOf(data), sumOf(other), web.URL); !errors.Is(err, ErrWrongHash) {
		t.Errorf("not the right kind of error: %v", err)
	}
	wantModels(t, s)
}

func TestGivesWay(t *testing.T) {
	data := content(50_000)
	good := serve(t, data)
	for name, c := range map[string]struct {
		data   []byte
		before func(int, http.ResponseWriter, *http.Request) bool
		why    string
	}{
		"not found":  {nil, func(_ int, w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true }, "404 Not Found"},
		"forbidden":  {nil, func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(403); return true }, "403 Forbidden"},
		"broken":     {nil, func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(599); return true }, "answers 599;"},
		"other size": {data[:9], nil, "9 bytes, not the expected 50000"},
		"other file": {make([]byte, 50_000), nil, "wrong SHA-256"},
		"no answer":  {nil, func(int, http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, "EOF"},
		"endless": {nil, func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			for _, err := w.Write(data); err == nil; _, err = w.Write(data) {
			}
			return true
		}, "more than the expected 50000 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := serve(t, c.data)
			bad.before = c.before
			s := newStore(t, Config{}, data, bad.URL+"/x.gguf", good.URL+"/x.gguf")
			var progress notes
			mustResolve(t, s, "m", &progress, data)
			progress.want(t, c.why, "trying the next source")
		})
	}
	t.Run("unreachable", func(t *testing.T) {
		closed := httptest.NewServer(http.NotFoundHandler())
		closed.Close()
		s := newStore(t, Config{}, data, closed.URL+"/x.gguf", good.URL+"/x.gguf")
		var progress notes
		mustResolve(t, s, "m", &progress, data)
		progress.want(t, "refused", "trying the next source")
	})
	t.Run("proxy", func(t *testing.T) {
		proxy := serve(t, nil)
		proxy.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(403); return true }
		s := newStore(t, Config{Proxy: func(r *http.Request) (*url.URL, error) {
			if r.URL.Hostname() == "nowhere.invalid" {
				return url.Parse(proxy.URL)
			}
			return nil, nil
		}}, data, "https://nowhere.invalid/x.gguf", good.URL+"/x.gguf")
		var progress notes
		mustResolve(t, s, "m", &progress, data)
		progress.want(t, "Forbidden; trying the next source")
	})
	t.Run("all", func(t *testing.T) {
		bad := serve(t, nil)
		s := newStore(t, Config{}, data, bad.URL+"/a.gguf", bad.URL+"/b.gguf")
		mustFail(t, s, "m", nil, "fetch M", "/a.gguf", "/b.gguf")
		wantModels(t, s)
	})
}

func TestNotAModel(t *testing.T) {
	web := serve(t, []byte("<html>please log in</html>"))
	s := newStore(t, Config{}, nil)
	mustFail(t, s, web.URL+"/x.gguf", nil, "not a model", "GGUF")
	wantModels(t, s)
}

func TestDamagedInCache(t *testing.T) {
	data := content(50_000)
	web := serve(t, data)
	s := newStore(t, Config{}, data, web.URL+"/x.gguf")
	local := mustResolve(t, s, "m", nil, data)
	write(t, local.Path, data[:40_000])
	if _, ok := s.Has(local.SHA256); ok {
		t.Error("a damaged file counts as cached")
	}
	var progress notes
	mustResolve(t, s, "m", &progress, data)
	if n := strings.Count(strings.Join(progress.list, "\n"), "damaged"); n != 1 {
		t.Errorf("said %d times that the file is damaged", n)
	}
	if web.count() != 2 {
		t.Errorf("%d requests", web.count())
	}
}

// Two who want the same file at once: the second waits, says so, and needs no request of its own.
func TestOnlyOneDownload(t *testing.T) {
	data := tinyModel(t)
	for _, stores := range []int{1, 2} {
		web := serve(t, data)
		waiting := make(chan struct{})
		web.before = func(int, http.ResponseWriter, *http.Request) bool {
			<-waiting
			return false
		}
		list := []*Store{newStore(t, Config{}, nil)}
		list = append(list, newStore(t, Config{Dir: list[0].config.Dir}, nil)) // as another process would have
		var once sync.Once
		var wait sync.WaitGroup
		for i := range 2 {
			wait.Go(func() {
				progress := &notes{onNote: func(text string) {
					if strings.HasPrefix(text, "waiting") {
						once.Do(func() { close(waiting) })
					}
				}}
				local, err := list[i%stores].Resolve(t.Context(), web.URL+"/x.gguf", progress)
				if err != nil || local.SHA256 != sumOf(data) {
					t.Errorf("%+v, %v", local, err)
				}
			})
		}
		wait.Wait()
		if web.count() != 1 {
			t.Errorf("%d requests with %d stores", web.count(), stores)
		}
	}
}

func TestOnlyOneDownloadOfProcesses(t *testing.T) {
	data := tinyModel(t)
	web := serve(t, data)
	waiting := make(chan struct{})
	web.mu.Lock() // no request of this process orders this before the server's reading it
	web.before = func(int, http.ResponseWriter, *http.Request) bool {
		<-waiting
		return false
	}
	web.mu.Unlock()
	var once sync.Once
	var wait sync.WaitGroup
	dir := t.TempDir()
	for range 2 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "DAISY_RESOLVE="+web.URL+"/x.gguf", "DAISY_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			last := ""
			for lines := bufio.NewScanner(out); lines.Scan(); {
				last = lines.Text()
				if strings.HasPrefix(last, "waiting") {
					once.Do(func() { close(waiting) })
				}
			}
			if err := cmd.Wait(); err != nil || last != "resolved "+sumOf(data) {
				t.Errorf("a child ended with %v, saying %q", err, last)
			}
		})
	}
	wait.Wait()
	if web.count() != 1 {
		t.Errorf("%d requests", web.count())
	}
}

func TestCancelWhileWaiting(t *testing.T) {
	for _, sameStore := range []bool{true, false} {
		s := newStore(t, Config{}, nil)
		const text = "https://localhost:1/x.gguf"
		unlock, err := s.lock(t.Context(), wanted{sources: []source{mustParse(t, text)}}.key(), silent{})
		if err != nil {
			t.Fatal(err)
		}
		if !sameStore {
			s = newStore(t, Config{Dir: s.config.Dir}, nil)
		}
		ctx, cancel := context.WithCancel(t.Context())
		_, err = s.Resolve(ctx, text, &notes{onNote: func(note string) {
			if strings.HasPrefix(note, "waiting") {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled while waiting: %v", err)
		}
		unlock()
		mustFail(t, s, text, nil, "refused") // the lock is free again
	}
}

func mustParse(t *testing.T, text string) source {
	t.Helper()
	s, err := parseSource(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
