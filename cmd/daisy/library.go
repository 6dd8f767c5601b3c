package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/pass"
	"github.com/daisy-llm/daisy/services/catalogue"
	"github.com/daisy-llm/daisy/services/weights"
	"github.com/daisy-llm/daisy/shard"
)

// library finds the file of the model that a coordinator asks for.
type library struct {
	store *catalogue.Store
	cache *weights.Cache
	given catalogue.Local // by --model; its zero value: nothing was given
	log   *slog.Logger
}

// open finds a file with the hash that load names: the one given, one in the cache, the one at the coordinator's own path; or,
// of a file that is on other machines only, what of it is here.
func (l *library) open(ctx context.Context, load pass.Load) (*gguf.File, error) {
	path, err := l.find(ctx, load)
	if err != nil {
		return nil, err
	}
	if path == "" {
		return l.cache.Open(ctx, load)
	}
	if err := l.cache.Add(load.SHA256, path); err != nil {
		l.log.Warn("the model's file cannot be given to other shards", "error", err)
	}
	return gguf.Open(path)
}

// find gives the path of a whole file, or none.
func (l *library) find(ctx context.Context, load pass.Load) (string, error) {
	if l.given.Path != "" {
		if l.given.SHA256 != load.SHA256 {
			return "", fmt.Errorf("%w: the coordinator serves %s with SHA-256 %s, the file given with --model has %s: start this shard with the coordinator's file, or without --model",
				shard.ErrModel, load.Model, load.SHA256, l.given.SHA256)
		}
		return l.given.Path, nil
	}
	if path, ok := l.store.Has(load.SHA256); ok {
		return path, nil
	}
	if info, err := os.Stat(load.Path); err == nil && info.Mode().IsRegular() && info.Size() == load.Bytes {
		hash, err := l.store.Hash(ctx, load.Path)
		if err == nil && hash == load.SHA256 {
			return load.Path, nil
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		l.log.Info("the file at the coordinator's path is not used here", "path", load.Path, "hash", hash, "error", err)
	}
	return "", nil
}

// peersOf are the other shards of a roster.
func peersOf(roster plan.Roster, self string) (peers []weights.Peer) {
	for _, m := range roster.Shards() {
		if m.Name != self {
			peers = append(peers, weights.Peer{Name: m.Name, Address: m.Address})
		}
	}
	return peers
}
