package catalogue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrWrongHash is the reason when a download is not the file that the catalogue names.
var ErrWrongHash = errors.New("wrong SHA-256")

// wanted is a file to fetch. Without a known hash, sources has one element.
type wanted struct {
	name    string // of the model
	title   string // for people
	note    string
	sha256  string // empty if unknown
	size    int64  // 0 if unknown
	sources []source
}

// key names the work of fetching, among all work of all processes.
func (w wanted) key() string {
	if w.sha256 != "" {
		return "sha256-" + w.sha256
	}
	return "source-" + textSum(w.sources[0].String())
}

// fetch gives the wanted file from the cache, or from the first source that has it.
func (s *Store) fetch(ctx context.Context, w wanted, progress Progress) (Local, error) {
	if local, ok := s.kept(ctx, w, progress); ok {
		return local, nil
	}
	if ctx.Err() != nil {
		return Local{}, fmt.Errorf("fetch %s: %w", w.title, context.Cause(ctx))
	}
	if err := os.MkdirAll(filepath.Join(s.config.Dir, "models"), 0o755); err != nil {
		return Local{}, fmt.Errorf("fetch %s: make the cache folder: %w", w.title, err)
	}
	unlock, err := s.lock(ctx, w.key(), progress)
	if err != nil {
		return Local{}, fmt.Errorf("fetch %s: %w", w.title, err)
	}
	defer unlock()
	// Whoever we waited for may have fetched it; what is wrong with the file otherwise was said before.
	if local, ok := s.kept(ctx, w, silent{}); ok {
		return local, nil
	}
	local, err := s.fetchLocked(ctx, w, progress)
	if err != nil {
		return Local{}, fmt.Errorf("fetch %s: %w", w.title, err)
	}
	local.Name = w.name
	return local, nil
}

// kept looks in the cache, by the hash that is known or that this source gave the last time.
func (s *Store) kept(ctx context.Context, w wanted, progress Progress) (Local, bool) {
	sum := w.sha256
	if sum == "" {
		sum = s.recall(w.key())
	}
	local, ok := s.cached(ctx, sum, progress)
	local.Name = w.name
	return local, ok
}

func (s *Store) fetchLocked(ctx context.Context, w wanted, progress Progress) (local Local, err error) {
	if w.note != "" {
		progress.Note(w.note)
	}
	p, err := openPartial(ctx, filepath.Join(s.config.Dir, "models", w.key()+".partial"), w, progress)
	if err != nil {
		return Local{}, err
	}
	defer func() { p.close(err) }()
	var failures []error
	for i, src := range w.sources {
		progress.Note(fmt.Sprintf("fetching %s from %s", w.title, label(src)))
		err := s.try(ctx, src, p)
		switch {
		case err == nil:
			return s.keep(ctx, p)
		case ctx.Err() != nil:
			return Local{}, context.Cause(ctx)
		case errors.As(err, new(localError)):
			return Local{}, err // no other source would do better
		}
		failures = append(failures, fmt.Errorf("%s: %w", label(src), err))
		if i+1 < len(w.sources) {
			progress.Note(fmt.Sprintf("%s: %v; trying the next source", label(src), err))
		}
	}
	return Local{}, errors.Join(failures...)
}

// try fetches from one source and verifies what came.
func (s *Store) try(ctx context.Context, src source, p *partial) error {
	err := src.fetch(ctx, s, p)
	if err == nil {
		err = p.verify()
	}
	if errors.Is(err, ErrWrongHash) && p.inherited {
		// What an earlier run left behind may be to blame.
		p.progress.Note("the beginning, from an earlier download, does not fit: fetching everything again")
		if err = p.reset(); err != nil {
			return err
		}
		if err = src.fetch(ctx, s, p); err == nil {
			err = p.verify()
		}
	}
	if errors.Is(err, ErrWrongHash) {
		return errors.Join(err, p.reset())
	}
	return err
}

// keep gives a verified file its final name.
func (s *Store) keep(ctx context.Context, p *partial) (Local, error) {
	local := Local{SHA256: p.digest(), Size: p.done}
	if p.want.sha256 == "" {
		_ = s.remember(p.want.key(), memo{Path: p.want.sources[0].String(), SHA256: local.SHA256})
		if same, ok := s.cached(ctx, local.SHA256, p.progress); ok {
			return same, nil // another source gave the same file, which may be in use
		}
	}
	local.Path = s.modelPath(local.SHA256)
	if err := p.finish(local.Path); err != nil {
		return Local{}, err
	}
	// Should this fail, the file is hashed once more some day: no reason to fail now.
	if info, err := os.Stat(local.Path); err == nil {
		_ = s.remember(hashKey(local.Path), memo{Path: local.Path, State: state(info), SHA256: local.SHA256})
	}
	return local, nil
}
