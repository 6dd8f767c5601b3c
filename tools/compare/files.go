package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// files finds the models, and makes those that nobody has.
type files struct {
	dir   string            // where they are kept
	given map[string]string // by the user: a subject's name to a file
	daisy string
	llama string // llama-quantize
	run   runner
	say   func(format string, args ...any)
}

// of gives the file of a subject.
func (f *files) of(ctx context.Context, s subject) (string, error) {
	if path, ok := f.given[s.name]; ok {
		return path, nil
	}
	if s.source != "" {
		out, _, err := f.run(ctx, f.daisy, "pull", s.source)
		path, _, _ := strings.Cut(string(out), "\n")
		return path, err
	}
	path := filepath.Join(f.dir, s.name+".gguf")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	f.say("making %s", path)
	partial := path + ".partial" // what an interrupted command leaves is never taken for a model
	if s.requantise != "" {
		all := subjects()
		from, err := f.of(ctx, all[slices.IndexFunc(all, func(other subject) bool { return other.name == s.requantise })])
		if err != nil {
			return "", err
		}
		if _, _, err := f.run(ctx, f.llama, "--allow-requantize", from, partial, "Q4_0"); err != nil {
			return "", errors.Join(err, remove(partial))
		}
	} else if _, _, err := f.run(ctx, f.daisy, "bench", "synth", "--force", "--like", s.like, "--type", s.typ, partial); err != nil {
		return "", errors.Join(err, remove(partial))
	}
	return path, os.Rename(partial, path)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
