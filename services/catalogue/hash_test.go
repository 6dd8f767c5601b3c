package catalogue

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// An unchanged file is not read again: proven by changing it behind the memo's back.
func TestHashIsRemembered(t *testing.T) {
	one, two := content(3<<20), make([]byte, 3<<20)
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "x.gguf"), one)
	long := time.Now().Add(-time.Hour)
	age := func(at time.Time) {
		t.Helper()
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	cache := t.TempDir()
	want := func(data []byte, why string) {
		t.Helper()
		sum, err := newStore(t, Config{Dir: cache}, nil).Hash(t.Context(), path) // a new store, as another process has
		if err != nil || sum != sumOf(data) {
			t.Errorf("%s: %s, %v", why, sum, err)
		}
	}
	age(long)
	want(one, "at first")
	write(t, path, two)
	age(long)
	want(one, "unchanged to all appearance")
	age(long.Add(time.Second))
	want(two, "another time")
	write(t, path, one[:100])
	age(long.Add(time.Second))
	want(one[:100], "another size")

	age(long)
	want(one[:100], "before replacing")
	other := write(t, filepath.Join(dir, "y"), two[:100])
	if err := os.Chtimes(other, long, long); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	want(two[:100], "another file in its place")

	key := hashKey(path)
	write(t, filepath.Join(cache, "hashes", key+".json"), []byte(`{"sha256":`))
	want(two[:100], "a damaged memo")
}

func TestHashFails(t *testing.T) {
	s := newStore(t, Config{}, nil)
	dir := t.TempDir()
	if _, err := s.Hash(t.Context(), dir+"/missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := s.Hash(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("a directory: %v", err)
	}
	path := write(t, dir+"/x", content(5<<20))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.hash(ctx, path, &notes{onBytes: func(int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if sum, err := s.Hash(t.Context(), path); err != nil || sum != sumOf(content(5<<20)) {
		t.Errorf("after cancelling: %s, %v", sum, err)
	}
}

// A cache folder that cannot be made costs only the memory of hashes, but downloads say what is wrong.
func TestUnusableCache(t *testing.T) {
	data := content(1000)
	file := write(t, filepath.Join(t.TempDir(), "x.gguf"), data)
	s := newStore(t, Config{Dir: filepath.Join(file, "cache")}, nil)
	mustResolve(t, s, file, nil, data)
	mustFail(t, s, "https://localhost:1/x.gguf", nil, "cache folder")
}

func TestHashOnceForMany(t *testing.T) {
	data := content(4 << 20)
	path := write(t, filepath.Join(t.TempDir(), "x.gguf"), data)
	cache := t.TempDir()
	var mu sync.Mutex
	hashed := 0
	var wait sync.WaitGroup
	for range 4 {
		s := newStore(t, Config{Dir: cache}, nil)
		wait.Go(func() {
			progress := &notes{}
			if sum, err := s.hash(t.Context(), path, progress); err != nil || sum != sumOf(data) {
				t.Errorf("%s, %v", sum, err)
			}
			if progress.has("checking") {
				mu.Lock()
				hashed++
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if hashed != 1 {
		t.Errorf("hashed %d times", hashed)
	}
}

// stubSource gives what the test tells it to.
type stubSource struct{ give func(p *partial) error }

func (stubSource) String() string { return "stub" }
func (stubSource) name() string   { return "stub" }
func (s stubSource) fetch(_ context.Context, _ *Store, p *partial) error {
	return s.give(p)
}

// When the disk is full no other source would do better, and what came does not keep it full.
func TestFullDisk(t *testing.T) {
	data := content(1000)
	s := newStore(t, Config{}, nil)
	tried := 0
	full := stubSource{func(p *partial) error {
		tried++
		if _, err := p.Write(data[:500]); err != nil {
			return err
		}
		device, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil { // not Linux
			return localError{syscall.ENOSPC}
		}
		defer device.Close()
		real := p.file
		p.file = device
		_, err = p.Write(data[500:])
		p.file = real
		return err
	}}
	w := wanted{title: "M", sha256: sumOf(data), size: 1000, sources: []source{full, full}}
	_, err := s.fetch(t.Context(), w, silent{})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "fetch M") {
		t.Errorf("a full disk: %v", err)
	}
	if tried != 1 {
		t.Errorf("%d sources were tried", tried)
	}
	wantModels(t, s)
}
