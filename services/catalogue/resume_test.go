package catalogue

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

func TestResumeAfterCut(t *testing.T) {
	data := tinyModel(t)
	for name, c := range map[string]struct {
		known bool
		tag   string
		want  []string
	}{
		"known hash, no tag":   {true, "", []string{"", "bytes=10000-"}},
		"known hash, tag":      {true, `"one"`, []string{"", "bytes=10000-"}},
		"unknown hash, tag":    {false, `"one"`, []string{"", "bytes=10000-"}},
		"unknown hash, weak":   {false, `W/"one"`, []string{"", ""}},
		"unknown hash, no tag": {false, "", []string{"", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			web := serve(t, data)
			web.tag, web.cutAfter = c.tag, first(10000)
			s, text := newStore(t, Config{}, nil), web.URL+"/x.gguf"
			if c.known {
				s, text = newStore(t, Config{}, data, text), "m"
			}
			var progress notes
			mustResolve(t, s, text, &progress, data)
			progress.want(t, "10000 bytes: resuming")
			wantRanges(t, web, c.want...)
			want := ""
			if c.want[1] != "" {
				want = c.tag
			}
			if got := web.requests[1].Get("If-Range"); got != want {
				t.Errorf("If-Range %q", got)
			}
			wantModels(t, s, finalName(data))
		})
	}
}

func TestChangedWhileCut(t *testing.T) {
	old, data := content(40_000), tinyModel(t)
	web := serve(t, old)
	web.cutAfter = first(10000)
	web.before = func(n int, _ http.ResponseWriter, _ *http.Request) bool {
		if n == 1 {
			web.data, web.tag = data, `"two"`
		}
		return false
	}
	mustResolve(t, newStore(t, Config{}, nil), web.URL+"/x.gguf", nil, data)
	wantRanges(t, web, "", "bytes=10000-")
}

func TestCutAgainAndAgain(t *testing.T) {
	data := content(100_000)
	web := serve(t, data)
	web.cutAfter = func(int) int { return 1000 }
	s := newStore(t, Config{}, data, web.URL+"/x.gguf")
	mustFail(t, s, "m", nil, "connection")
	wantRanges(t, web, "", "bytes=1000-", "bytes=2000-", "bytes=3000-", "bytes=4000-")
	wantModels(t, s, partialName(data))
	web.cutAfter = nil
	mustResolve(t, s, "m", nil, data)
	wantModels(t, s, finalName(data))
}

func TestCancelAndResumeNextTime(t *testing.T) {
	data := content(300_000)
	web := serve(t, data)
	web.before = func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n > 0 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:100_000])
		w.(http.Flusher).Flush()
		<-r.Context().Done() // a server that has gone to sleep
		return true
	}
	s := newStore(t, Config{}, data, web.URL+"/x.gguf", "https://localhost:1/never-tried")
	ctx, cancel := context.WithCancel(t.Context())
	progress := &notes{onBytes: func(done int64) {
		if done == 100_000 {
			cancel()
		}
	}}
	if _, err := s.Resolve(ctx, "m", progress); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if progress.has("never-tried") {
		t.Error("went on after cancelling")
	}
	wantModels(t, s, partialName(data))
	mustResolve(t, s, "m", nil, data)
	wantRanges(t, web, "", "bytes=100000-")
	wantModels(t, s, finalName(data))
}

func TestCancelWithoutHashLeavesNothing(t *testing.T) {
	data := tinyModel(t)
	web := serve(t, data)
	web.before = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		_, _ = w.Write(data[:10_000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	s := newStore(t, Config{}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Resolve(ctx, web.URL+"/x.gguf", &notes{onBytes: func(int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	wantModels(t, s)
}

func TestStalledServer(t *testing.T) {
	data := content(50_000)
	sleepy, web := serve(t, data), serve(t, data)
	sleepy.before = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	s := newStore(t, Config{}, data, sleepy.URL+"/x.gguf", web.URL+"/x.gguf")
	s.stall = 50 * time.Millisecond
	var progress notes
	mustResolve(t, s, "m", &progress, data)
	progress.want(t, "nothing came for 50ms; trying the next source")
}

// A server that stalls after a few bytes each time must not cost as many waits as a broken connection has attempts.
func TestServerThatDrips(t *testing.T) {
	data := content(50_000)
	sleepy, web := serve(t, data), serve(t, data)
	sleepy.before = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusOK)
		w.Write(data[:4])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	s := newStore(t, Config{}, data, sleepy.URL+"/x.gguf", web.URL+"/x.gguf")
	s.stall = 50 * time.Millisecond
	var progress notes
	mustResolve(t, s, "m", &progress, data)
	progress.want(t, "nothing came for 50ms; trying the next source")
	if sleepy.count() != 1 {
		t.Errorf("%d requests to a server that stalls", sleepy.count())
	}
}

func TestLeftovers(t *testing.T) {
	data := content(50_000)
	for name, c := range map[string]struct {
		left  []byte
		want  []string // ranges
		notes string
	}{
		"beginning":       {data[:20_000], []string{"bytes=20000-"}, "fetching"},
		"all":             {data, nil, "fetching"},
		"other beginning": {content(20_000), []string{"bytes=20000-", ""}, "does not fit"},
		"other, all":      {make([]byte, 50_000), []string{""}, "does not fit"},
		"too long":        {make([]byte, 50_001), []string{""}, "fetching"},
		"empty":           {nil, []string{""}, "fetching"},
	} {
		t.Run(name, func(t *testing.T) {
			web := serve(t, data)
			s := newStore(t, Config{}, data, web.URL+"/x.gguf")
			write(t, filepath.Join(s.config.Dir, "models", partialName(data)), c.left)
			var progress notes
			mustResolve(t, s, "m", &progress, data)
			wantRanges(t, web, c.want...)
			progress.want(t, c.notes)
			wantModels(t, s, finalName(data))
		})
	}
}

func TestNoRanges(t *testing.T) {
	data := content(50_000)
	web := serve(t, data)
	web.before = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range")
		return false
	}
	s := newStore(t, Config{}, data, web.URL+"/x.gguf")
	write(t, filepath.Join(s.config.Dir, "models", partialName(data)), data[:20_000])
	mustResolve(t, s, "m", nil, data)
}

func TestRangeNotSatisfiable(t *testing.T) {
	data := content(50_000)
	web := serve(t, data[:10_000])
	s := newStore(t, Config{}, data, web.URL+"/x.gguf")
	write(t, filepath.Join(s.config.Dir, "models", partialName(data)), data[:20_000])
	mustFail(t, s, "m", nil, "10000 bytes", "50000")
	wantRanges(t, web, "bytes=20000-", "")
}

func TestWrongRange(t *testing.T) {
	data := content(50_000)
	for _, header := range []string{"", "bytes 0-49999/50000", "bytes 20000-49999/*", "bytes 20000-40000/50000", "bytes 20000-59999/60000"} {
		web := serve(t, data)
		web.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Range", header)
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(data)
			return true
		}
		s := newStore(t, Config{}, data, web.URL+"/x.gguf")
		write(t, filepath.Join(s.config.Dir, "models", partialName(data)), data[:20_000])
		mustFail(t, s, "m", nil)
	}
}
