package catalogue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Config says where models are kept and how the outside is reached.
type Config struct {
	// Dir is the cache folder; it is made when needed. All processes of a user should share one, or models are downloaded
	// and hashed more than once.
	Dir string

	// HFEndpoint is where hf: sources are looked for; empty means https://huggingface.co. A mirror must have the same paths.
	HFEndpoint string

	// HFToken, if not empty, is shown to HFEndpoint and to nobody else. Models that ask for consent need one.
	HFToken string

	// Python is the interpreter whose pip serves pip: sources; empty means the first of python3 and python that has a pip,
	// then the commands pip3 and pip.
	Python string

	// Proxy picks the proxy of a request, as in http.Transport; nil means none.
	Proxy func(*http.Request) (*url.URL, error)
}

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	if c.Dir == "" {
		return errors.New("catalogue: no cache folder given")
	}
	if c.HFEndpoint != "" {
		u, err := url.Parse(c.HFEndpoint)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return fmt.Errorf("catalogue: the Hugging Face endpoint %q is not a URL", c.HFEndpoint)
		}
	}
	return nil
}

// Progress is told what goes on while a model is fetched, from one goroutine.
type Progress interface {
	// Note is a sentence for the user: what begins, what failed, what is waited for. It begins a new step: Bytes counts
	// from 0 again.
	Note(text string)

	// Bytes is how far the step has got; total is 0 while nobody knows it.
	Bytes(done, total int64)
}

type silent struct{}

func (silent) Note(string)        {}
func (silent) Bytes(int64, int64) {}

// Local is a model on this machine.
type Local struct {
	Name   string // the catalogue's, or the file's without its ending
	Path   string // absolute
	SHA256 string // lower-case hexadecimal
	Size   int64  // bytes
}

// Store resolves models. It may be used from many goroutines, and many processes may have a Store on one folder.
type Store struct {
	config    Config
	catalogue Catalogue
	client    *http.Client
	stall     time.Duration // a download that brings nothing for so long counts as lost

	mu    sync.Mutex
	gates map[string]chan struct{} // by key; whoever filled the channel works on that key
}

// New makes a store. Nothing is read or written yet.
func New(config Config, catalogue Catalogue) (*Store, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(config.Dir)
	if err != nil {
		return nil, fmt.Errorf("catalogue: cache folder: %w", err)
	}
	config.Dir = dir
	if config.HFEndpoint == "" {
		config.HFEndpoint = "https://huggingface.co"
	}
	return &Store{
		config: config, catalogue: catalogue, client: newClient(config.Proxy), stall: stallTimeout,
		gates: map[string]chan struct{}{},
	}, nil
}

// Dir is the cache folder.
func (s *Store) Dir() string { return s.config.Dir }

// Resolve finds the model that the user named, fetching it if need be: a name of the catalogue, the path of a file, or a
// source. progress may be nil.
func (s *Store) Resolve(ctx context.Context, text string, progress Progress) (Local, error) {
	if progress == nil {
		progress = silent{}
	}
	if isSource(text) {
		return s.resolveSource(ctx, text, progress)
	}
	if !looksLikePath(text) {
		model, err := s.catalogue.Find(text)
		if err == nil {
			return s.resolveModel(ctx, model, progress)
		}
		if info, statErr := os.Stat(text); statErr != nil || !info.Mode().IsRegular() {
			return Local{}, err
		}
	}
	return s.resolveFile(ctx, text, progress)
}

func (s *Store) resolveModel(ctx context.Context, m Model, progress Progress) (Local, error) {
	sources := make([]source, len(m.Sources))
	for i, text := range m.Sources {
		var err error
		if sources[i], err = parseSource(text); err != nil {
			return Local{}, err
		}
	}
	w := wanted{name: m.Name, title: m.Title, note: m.Note, sha256: m.SHA256, size: m.Size, sources: sources}
	return s.fetch(ctx, w, progress)
}

func (s *Store) resolveSource(ctx context.Context, text string, progress Progress) (Local, error) {
	src, err := parseSource(text)
	if err != nil {
		return Local{}, err
	}
	w := wanted{name: src.name(), title: src.name(), sources: []source{src}}
	// The catalogue may know what this source should give.
	for _, m := range s.catalogue.models {
		if slices.Contains(m.Sources, text) {
			w.name, w.title, w.note, w.sha256, w.size = m.Name, m.Title, m.Note, m.SHA256, m.Size
		}
	}
	return s.fetch(ctx, w, progress)
}

func (s *Store) resolveFile(ctx context.Context, path string, progress Progress) (Local, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Local{}, fmt.Errorf("model file %s: %w", path, fs.ErrNotExist)
	case err != nil:
		return Local{}, fmt.Errorf("model file: %w", err)
	case info.IsDir():
		return Local{}, fmt.Errorf("model file %s: it is a directory: name the .gguf file in it", path)
	case !info.Mode().IsRegular():
		return Local{}, fmt.Errorf("model file %s: it is not a regular file", path)
	}
	if path, err = filepath.Abs(path); err != nil {
		return Local{}, fmt.Errorf("model file: %w", err)
	}
	sum, err := s.hash(ctx, path, progress)
	if err != nil {
		return Local{}, err
	}
	return Local{Name: baseName(path), Path: path, SHA256: sum, Size: info.Size()}, nil
}

// Has says whether the cache holds the file with this hash, and where.
func (s *Store) Has(sha256 string) (path string, ok bool) {
	local, ok := s.cached(context.Background(), sha256, silent{})
	return local.Path, ok
}

// cached looks for a file in the cache. One that no longer has the hash it was kept by does not count.
func (s *Store) cached(ctx context.Context, sha256 string, progress Progress) (Local, bool) {
	if !isSHA256(sha256) { // it may come from a peer, and becomes part of a path
		return Local{}, false
	}
	path := s.modelPath(sha256)
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return Local{}, false
	}
	sum, err := s.hash(ctx, path, progress)
	if err != nil {
		return Local{}, false
	}
	if sum != sha256 {
		progress.Note(path + " is damaged: it has another hash by now")
		return Local{}, false
	}
	return Local{Path: path, SHA256: sha256, Size: info.Size()}, true
}

func (s *Store) modelPath(sha256 string) string {
	return filepath.Join(s.config.Dir, "models", "sha256-"+sha256+".gguf")
}
