package catalogue

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/daisy-llm/daisy/model/gguf"
)

// This test's binary also plays a Python with pip, and another Daisy process, when the environment says so.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("DAISY_FAKE_PIP") != "":
		os.Exit(fakePip(os.Args))
	case os.Getenv("DAISY_RESOLVE") != "":
		os.Exit(resolveInChild())
	}
	goleak.VerifyTestMain(m)
}

// notes records what the user would be told.
type notes struct {
	mu      sync.Mutex
	list    []string
	done    int64
	total   int64
	onNote  func(string)
	onBytes func(done int64)
}

func (n *notes) Note(text string) {
	n.mu.Lock()
	n.list = append(n.list, text)
	n.mu.Unlock()
	if n.onNote != nil {
		n.onNote(text)
	}
}

func (n *notes) Bytes(done, total int64) {
	n.mu.Lock()
	n.done, n.total = done, total
	n.mu.Unlock()
	if n.onBytes != nil {
		n.onBytes(done)
	}
}

func (n *notes) has(part string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.list, func(s string) bool { return strings.Contains(s, part) })
}

func (n *notes) want(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !n.has(part) {
			t.Errorf("nobody said %q, only %q", part, n.list)
		}
	}
}

// content is what a model file consists of here: it need not be GGUF where its hash is known.
func content(size int) []byte {
	b := make([]byte, size)
	random := rand.New(rand.NewPCG(1, uint64(size)))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// tinyModel is a real GGUF file of some kilobytes.
func tinyModel(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	err := gguf.Write(&b, []gguf.KeyValue{{Key: "general.architecture", Value: "llama"}},
		[]gguf.Tensor{{Name: "t", Dims: []int{1 << 15}, Type: gguf.I8, Data: content(1 << 15)}})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// newStore makes a store on dir whose catalogue has the model "m", with the given content and sources.
func newStore(t *testing.T, config Config, data []byte, sources ...string) *Store {
	t.Helper()
	if config.Dir == "" {
		config.Dir = t.TempDir()
	}
	var c Catalogue
	if len(sources) > 0 {
		c.models = []Model{{
			Name: "m", Title: "M", SHA256: sumOf(data), Size: int64(len(data)), License: "none", Sources: sources,
		}}
	}
	s, err := New(config, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustResolve(t *testing.T, s *Store, text string, progress Progress, want []byte) Local {
	t.Helper()
	local, err := s.Resolve(t.Context(), text, progress)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(local.Path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s has %d bytes, other than the %d wanted", local.Path, len(got), len(want))
	}
	if local.SHA256 != sumOf(want) || local.Size != int64(len(want)) || !filepath.IsAbs(local.Path) || local.Name == "" {
		t.Errorf("resolved to %+v", local)
	}
	return local
}

func mustFail(t *testing.T, s *Store, text string, progress Progress, parts ...string) error {
	t.Helper()
	local, err := s.Resolve(t.Context(), text, progress)
	if err == nil {
		t.Fatalf("no error, but %+v", local)
	}
	if local != (Local{}) {
		t.Errorf("an error and yet %+v", local)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error %q should mention %q", err, part)
		}
	}
	return err
}

// models lists what the cache's folder of models holds.
func models(t *testing.T, s *Store) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.config.Dir, "models"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func wantModels(t *testing.T, s *Store, want ...string) {
	t.Helper()
	if got := models(t, s); !slices.Equal(got, want) {
		t.Errorf("the cache holds %q, not %q", got, want)
	}
}

func finalName(data []byte) string   { return "sha256-" + sumOf(data) + ".gguf" }
func partialName(data []byte) string { return "sha256-" + sumOf(data) + ".partial" }

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// makeWheel zips files, name and content by turns.
func makeWheel(t *testing.T, path string, files ...any) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		w, err := z.Create(files[i].(string))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(files[i+1].([]byte)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return write(t, path, b.Bytes())
}

// resolveInChild is what another process does: resolve, and say on standard output what happens.
func resolveInChild() int {
	s, err := New(Config{Dir: os.Getenv("DAISY_DIR")}, Catalogue{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	progress := &notes{onNote: func(text string) { fmt.Println(text) }}
	local, err := s.Resolve(context.Background(), os.Getenv("DAISY_RESOLVE"), progress)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("resolved", local.SHA256)
	return 0
}
