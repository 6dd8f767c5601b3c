package weights

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/pass"
	"github.com/daisy-llm/daisy/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const modelFile = "../../model/testdata/golden/llama/model.gguf"

// fixture is a model file at a coordinator, in chunks of a page.
type fixture struct {
	data   []byte
	origin *Origin
	load   pass.Load
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	data, err := os.ReadFile(modelFile)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := gguf.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	f := &fixture{data: data}
	f.origin, err = OpenOrigin(OriginConfig{
		Path: modelFile, SHA256: hex.EncodeToString(sum[:]), Header: parsed.Header(), Dir: t.TempDir(),
		ChunkBytes: pass.MinChunkBytes, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.origin.Close() })
	root, err := f.origin.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.load = pass.Load{Model: "m", SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(data)), Root: root}
	return f
}

// source counts what is asked of it; before, if set, may answer in its place.
type source struct {
	pass.Weights
	before func(ctx context.Context, index int) ([]byte, error)

	mu    sync.Mutex
	asked map[int]int
}

func (s *source) Chunk(ctx context.Context, sha string, chunkBytes, index int) ([]byte, error) {
	s.mu.Lock()
	if s.asked == nil {
		s.asked = make(map[int]int)
	}
	s.asked[index]++
	s.mu.Unlock()
	if s.before != nil {
		if data, err := s.before(ctx, index); data != nil || err != nil {
			return data, err
		}
	}
	return s.Weights.Chunk(ctx, sha, chunkBytes, index)
}

func (s *source) Close() error { return nil }

func (s *source) chunks() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// newCache makes a cache that may ask peers.
func newCache(t *testing.T, dir, owner string, log *bytes.Buffer, peers map[string]Remote) *Cache {
	t.Helper()
	handler := slog.Handler(slog.DiscardHandler)
	if log != nil {
		handler = slog.NewTextHandler(log, nil)
	}
	c, err := NewCache(CacheConfig{
		Dir: dir, Owner: owner, Log: slog.New(handler),
		Peers: func() (all []Peer) {
			for name := range peers {
				all = append(all, Peer{Name: name, Address: name})
			}
			return all
		},
		Dial: func(p Peer) (Remote, error) { return peers[p.Name], nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	c.limits.late, c.limits.retry = 20*time.Millisecond, 20*time.Millisecond
	t.Cleanup(func() { c.Close() })
	return c
}

// open opens the file, and gives its tensors.
func open(t *testing.T, c *Cache, load pass.Load) (*gguf.File, []*gguf.Tensor) {
	t.Helper()
	file, err := c.Open(t.Context(), load)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	var tensors []*gguf.Tensor
	for i := range file.Tensors() {
		tensors = append(tensors, &file.Tensors()[i])
	}
	return file, tensors
}

func quiet(int64, int64) {}

// Only what was asked for comes, byte for byte, and takes room; what is no longer needed becomes a hole.
func TestFetchAndKeep(t *testing.T) {
	f := newFixture(t)
	c := newCache(t, t.TempDir(), "a", nil, nil)
	if _, err := c.Open(t.Context(), pass.Load{SHA256: f.load.SHA256, Bytes: f.load.Bytes}); !errors.Is(err, shard.ErrNoFile) {
		t.Fatalf("without a root: %v", err)
	}
	from := &source{Weights: f.origin}
	defer c.Offer("c", from)()
	_, tensors := open(t, c, f.load)
	half := tensors[:len(tensors)/2]
	var last int64
	if err := c.Fetch(t.Context(), f.load, half, func(done, total int64) {
		if done < last || done > total {
			t.Errorf("progress from %d to %d of %d", last, done, total)
		}
		last = done
	}); err != nil {
		t.Fatal(err)
	}
	for _, tensor := range half {
		if !bytes.Equal(tensor.Data, f.data[tensor.Offset:][:len(tensor.Data)]) {
			t.Errorf("%s has other bytes", tensor.Name)
		}
	}
	s := c.slots[f.load.SHA256]
	if n := from.chunks(); n >= len(s.states) || n == 0 {
		t.Errorf("%d chunks of %d came for half of the tensors", n, len(s.states))
	}
	if !canPunch {
		return
	}
	before := room(t, s.path())
	if before > int64(from.chunks())*pass.MinChunkBytes+64<<10 {
		t.Errorf("%d bytes on the disk for %d chunks", before, from.chunks())
	}
	c.Keep(f.load, half[:1])
	if after := room(t, s.path()); after >= before {
		t.Errorf("%d bytes on the disk, and %d after most were given up", before, after)
	}
	if err := c.Fetch(t.Context(), f.load, half, quiet); err != nil {
		t.Fatal(err)
	}
	for _, tensor := range half {
		if !bytes.Equal(tensor.Data, f.data[tensor.Offset:][:len(tensor.Data)]) {
			t.Errorf("%s has other bytes once it came back", tensor.Name)
		}
	}
}

// What came before a process ended is not fetched again, and what the disk has changed meanwhile is.
func TestResume(t *testing.T) {
	f := newFixture(t)
	dir := t.TempDir()
	c := newCache(t, dir, "a", nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	var mu sync.Mutex
	first := &source{Weights: f.origin, before: func(ctx context.Context, _ int) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		if n++; n > 12 {
			cancel()
			return nil, ctx.Err()
		}
		return nil, nil
	}}
	withdraw := c.Offer("c", first)
	file, err := c.Open(ctx, f.load)
	if err != nil {
		t.Fatal(err)
	}
	var tensors []*gguf.Tensor
	for i := range file.Tensors() {
		tensors = append(tensors, &file.Tensors()[i])
	}
	if err := c.Fetch(ctx, f.load, tensors, quiet); err == nil {
		t.Fatal("the end of its context did not end it")
	}
	withdraw()
	file.Close()
	s := c.slots[f.load.SHA256]
	var there []int
	damaged := -1
	for i, state := range s.states {
		if state != absent {
			there = append(there, i)
		}
		if state == written {
			damaged = i
		}
	}
	if damaged < 0 {
		t.Fatalf("nothing was written: %v", s.states)
	}
	offset, _ := s.list.span(damaged)
	if _, err := s.data.WriteAt([]byte("damage"), offset); err != nil {
		t.Fatal(err)
	}
	c.Close()

	again := newCache(t, dir, "a", nil, nil)
	second := &source{Weights: f.origin}
	defer again.Offer("c", second)()
	_, tensors = open(t, again, f.load)
	if err := again.Fetch(t.Context(), f.load, tensors, quiet); err != nil {
		t.Fatal(err)
	}
	for _, i := range there {
		if i != damaged && second.asked[i] > 0 {
			t.Errorf("chunk %d was there, and fetched again", i)
		}
	}
	if second.asked[damaged] != 1 {
		t.Errorf("the damaged chunk was fetched %d times", second.asked[damaged])
	}
	for _, tensor := range tensors {
		if !bytes.Equal(tensor.Data, f.data[tensor.Offset:][:len(tensor.Data)]) {
			t.Errorf("%s has other bytes", tensor.Name)
		}
	}
}

// A source that gives wrong bytes is named, and asked no more; its bytes are used nowhere.
func TestLyingPeer(t *testing.T) {
	f := newFixture(t)
	liar := &source{Weights: f.origin, before: func(context.Context, int) ([]byte, error) { return make([]byte, pass.MinChunkBytes), nil }}
	var log bytes.Buffer
	c := newCache(t, t.TempDir(), "a", &log, map[string]Remote{"liar": liar})
	honest := &source{Weights: f.origin, before: func(ctx context.Context, _ int) ([]byte, error) {
		for !c.distrusts("shard liar") { // it gives nothing before the other one has lied
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
		return nil, nil
	}}
	defer c.Offer("c", honest)()
	_, tensors := open(t, c, f.load)
	if err := c.Fetch(t.Context(), f.load, tensors, quiet); err != nil {
		t.Fatal(err)
	}
	for _, tensor := range tensors {
		if !bytes.Equal(tensor.Data, f.data[tensor.Offset:][:len(tensor.Data)]) {
			t.Errorf("%s has other bytes", tensor.Name)
		}
	}
	if !strings.Contains(log.String(), "gave wrong bytes") || !strings.Contains(log.String(), "shard liar") {
		t.Errorf("the log does not name who lied: %s", &log)
	}
	if n := liar.chunks(); n > maxAsks {
		t.Errorf("the liar was asked for %d chunks", n)
	}
}

// Where the coordinator gives nothing, two shards give each other what each has.
func TestPeersWithoutCoordinator(t *testing.T) {
	f := newFixture(t)
	one, two := newCache(t, t.TempDir(), "one", nil, nil), newCache(t, t.TempDir(), "two", nil, nil)
	var tensors []*gguf.Tensor
	for i, c := range []*Cache{one, two} {
		withdraw := c.Offer("c", f.origin)
		_, tensors = open(t, c, f.load)
		part := tensors[:len(tensors)/2]
		if i == 1 {
			part = tensors[len(tensors)/2:]
		}
		if err := c.Fetch(t.Context(), f.load, part, quiet); err != nil {
			t.Fatal(err)
		}
		withdraw()
	}
	peers := map[*Cache]Peer{one: {Name: "two", Address: "2"}, two: {Name: "one", Address: "1"}}
	remotes := map[string]Remote{"one": &source{Weights: one}, "two": &source{Weights: two}}
	for c, p := range peers {
		c.cfg.Peers = func() []Peer { return []Peer{p} }
		c.cfg.Dial = func(p Peer) (Remote, error) { return remotes[p.Name], nil }
	}
	for c := range peers {
		if err := c.Fetch(t.Context(), f.load, tensors, quiet); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(c.slots[f.load.SHA256].path())
		if err != nil {
			t.Fatal(err)
		}
		for _, tensor := range tensors {
			if at := tensor.Offset; !bytes.Equal(got[at:][:len(tensor.Data)], f.data[at:][:len(tensor.Data)]) {
				t.Errorf("%s has other bytes", tensor.Name)
			}
		}
	}
	// A list from a peer fits the root as well.
	three := newCache(t, t.TempDir(), "three", nil, remotes)
	open(t, three, f.load)
}

// Shards that share a folder have slots of their own, copy from each other, and find their own again.
func TestSharedFolder(t *testing.T) {
	f := newFixture(t)
	dir := t.TempDir()
	one := newCache(t, dir, "one", nil, nil)
	withdraw := one.Offer("c", f.origin)
	_, tensors := open(t, one, f.load)
	if err := one.Fetch(t.Context(), f.load, tensors, quiet); err != nil {
		t.Fatal(err)
	}
	withdraw()
	two := newCache(t, dir, "two", nil, nil)
	from := &source{Weights: f.origin}
	defer two.Offer("c", from)()
	_, tensors = open(t, two, f.load)
	if err := two.Fetch(t.Context(), f.load, tensors, quiet); err != nil {
		t.Fatal(err)
	}
	if from.chunks() > 0 {
		t.Errorf("%d chunks came from the coordinator that were on this machine", from.chunks())
	}
	a, b := one.slots[f.load.SHA256].dir, two.slots[f.load.SHA256].dir
	if a == b {
		t.Errorf("both have %s", a)
	}
	one.Close()
	two.Close()
	again := newCache(t, dir, "two", nil, nil)
	open(t, again, f.load)
	if got := again.slots[f.load.SHA256].dir; got != b {
		t.Errorf("%s has %s, it had %s", "two", got, b)
	}
}

// fullDisk takes no more.
type fullDisk struct{ disk }

func (fullDisk) WriteAt([]byte, int64) (int, error) { return 0, syscall.ENOSPC }

// A full disk is an error that says what to do, and leaves nothing that is not so.
func TestFullDisk(t *testing.T) {
	f := newFixture(t)
	c := newCache(t, t.TempDir(), "a", nil, nil)
	defer c.Offer("c", f.origin)()
	_, tensors := open(t, c, f.load)
	s := c.slots[f.load.SHA256]
	data := s.data
	s.data = fullDisk{data}
	err := c.Fetch(t.Context(), f.load, tensors, quiet)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "is full") || !strings.Contains(err.Error(), "--cache-dir") {
		t.Fatalf("the error is %v", err)
	}
	s.data = data
	if err := c.Fetch(t.Context(), f.load, tensors, quiet); err != nil {
		t.Fatal(err)
	}
	for _, tensor := range tensors {
		if !bytes.Equal(tensor.Data, f.data[tensor.Offset:][:len(tensor.Data)]) {
			t.Errorf("%s has other bytes", tensor.Name)
		}
	}
}

// A file that is not what it was is no source, and no list that does not fit its root is believed.
func TestNothingWrongIsBelieved(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(t.TempDir(), "model.gguf")
	changed := bytes.Clone(f.data)
	changed[len(changed)/2] ^= 1
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := f.origin.cfg
	cfg.Path, cfg.Dir = path, t.TempDir()
	other, err := OpenOrigin(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Root(t.Context()); err == nil {
		t.Error("a changed file was hashed without complaint")
	}
	for name, change := range map[string]func([]byte) []byte{
		"cut off": func(b []byte) []byte { return b[:len(b)-1] },
		"empty":   func([]byte) []byte { return nil },
		"longer":  func(b []byte) []byte { return append(b, 0) },
		"a size":  func(b []byte) []byte { b[len(listMagic)+7] = 0xff; return b },
		"a chunk": func(b []byte) []byte { b[len(listMagic)+17] = 0xff; return b },
	} {
		if _, err := parseList(change(bytes.Clone(f.origin.encoded)), f.load.SHA256); err == nil {
			t.Errorf("%s: the list was believed", name)
		}
	}
	wrong := f.load
	wrong.Root = strings.Repeat("0", 64)
	c := newCache(t, t.TempDir(), "a", nil, nil)
	c.limits.stall = 50 * time.Millisecond
	defer c.Offer("c", f.origin)()
	if file, err := c.Open(t.Context(), wrong); err == nil {
		file.Close()
		t.Error("a list of another root was believed")
	}
}
