package weights

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/daisy-llm/daisy/pass"
)

// OriginConfig describes the whole file that a coordinator has.
type OriginConfig struct {
	Path   string
	SHA256 string // that the file was found to have
	Header int64  // bytes before the first tensor's data

	// Dir is the cache folder, where the list is kept for the next time.
	Dir string

	// ChunkBytes is the unit in which the file travels; smaller ones waste less at the edges of blocks and make a longer
	// list. 0: the largest that there may be.
	ChunkBytes int

	Log *slog.Logger
}

// maxReads bounds the chunks that are read for others at once.
const maxReads = 8

// Origin is a coordinator's file, which shards get their blocks from. It may be used from several goroutines.
type Origin struct {
	cfg   OriginConfig
	list  List // but for its hashes
	file  *os.File
	reads chan struct{} // capacity maxReads

	measuring chan struct{} // capacity 1: the list is being made

	mu      sync.Mutex
	known   *List  // with its hashes; nil: nobody has asked for it
	encoded []byte // known, as it travels
}

// OpenOrigin opens the file, so that it can be read even if it loses its name. Its list is made when it is asked for.
func OpenOrigin(cfg OriginConfig) (*Origin, error) {
	if cfg.ChunkBytes == 0 {
		cfg.ChunkBytes = pass.ChunkBytes
	}
	sum, err := parseHash(cfg.SHA256)
	if err != nil {
		return nil, fmt.Errorf("weights of %s: %w", cfg.Path, err)
	}
	file, err := os.Open(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("weights: %w", err)
	}
	return &Origin{
		cfg: cfg, file: file, list: List{SHA256: sum, Size: info.Size(), Header: cfg.Header, Chunk: cfg.ChunkBytes},
		reads: make(chan struct{}, maxReads), measuring: make(chan struct{}, 1),
	}, nil
}

// Close ends the giving.
func (o *Origin) Close() error { return o.file.Close() }

// Root names the list, which is made now if it never was; of a large file that takes as long as hashing it.
func (o *Origin) Root(ctx context.Context) (string, error) {
	_, encoded, err := o.lists(ctx)
	if err != nil {
		return "", fmt.Errorf("weights of %s: %w", o.cfg.Path, err)
	}
	return rootOf(encoded), nil
}

func (o *Origin) lists(ctx context.Context) (*List, []byte, error) {
	select {
	case o.measuring <- struct{}{}:
		defer func() { <-o.measuring }()
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	o.mu.Lock()
	list, encoded := o.known, o.encoded
	o.mu.Unlock()
	if list != nil {
		return list, encoded, nil
	}
	dir := originDir(o.cfg.Dir, o.cfg.SHA256)
	list, encoded = o.remembered(dir)
	if list == nil {
		began := time.Now()
		var err error
		if list, err = measure(ctx, o.file, o.list); err != nil {
			return nil, nil, err
		}
		encoded = list.encode()
		o.cfg.Log.Info("hashed the chunks of the model, for shards that do not have its file", "chunks", list.count(), "took", time.Since(began).Round(time.Millisecond))
		sealed := append(encoded[:len(encoded):len(encoded)], rootOf(encoded)...)
		if err := writeList(dir, sealed); err != nil { // it is made again next time
			o.cfg.Log.Warn("the hashes of the model's chunks cannot be kept", "folder", dir, "error", err)
		}
	}
	o.mu.Lock()
	o.known, o.encoded = list, encoded
	o.mu.Unlock()
	return list, encoded, nil
}

// originDir is where a coordinator keeps the list of its file.
func originDir(base, sha256 string) string {
	return filepath.Join(base, "chunks", sha256, "origin")
}

// remembered is the list that was made earlier, or nil. It ends with its root, so that one that was damaged is not believed.
func (o *Origin) remembered(dir string) (*List, []byte) {
	sealed, err := readList(dir)
	if err != nil || len(sealed) < listHeader+hex.EncodedLen(len(Hash{})) {
		return nil, nil
	}
	encoded := sealed[:len(sealed)-hex.EncodedLen(len(Hash{}))]
	list, err := parseList(encoded, o.cfg.SHA256)
	if err != nil || rootOf(encoded) != string(sealed[len(encoded):]) || list.Size != o.list.Size || list.Header != o.list.Header || list.Chunk != o.list.Chunk {
		return nil, nil
	}
	return list, encoded
}

// List gives the list of this file's chunks.
func (o *Origin) List(ctx context.Context, sha256, root string) ([]byte, error) {
	if sha256 != o.cfg.SHA256 {
		return nil, pass.ErrNotHeld
	}
	_, encoded, err := o.lists(ctx)
	if err == nil && rootOf(encoded) != root {
		err = pass.ErrNotHeld
	}
	return encoded, err
}

// Held says that all chunks are there.
func (o *Origin) Held(_ context.Context, sha256 string, chunkBytes int) ([]byte, error) {
	if sha256 != o.cfg.SHA256 || chunkBytes != o.list.Chunk {
		return nil, pass.ErrNotHeld
	}
	return bitmap(o.list.count(), func(int) bool { return true }), nil
}

// Chunk reads one of the file's chunks, if the file is still what it was.
func (o *Origin) Chunk(ctx context.Context, sha256 string, chunkBytes, index int) ([]byte, error) {
	if sha256 != o.cfg.SHA256 || chunkBytes != o.list.Chunk || index < 0 || index >= o.list.count() {
		return nil, pass.ErrNotHeld
	}
	list, _, err := o.lists(ctx)
	if err != nil {
		return nil, err
	}
	select {
	case o.reads <- struct{}{}:
		defer func() { <-o.reads }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	offset, length := list.span(index)
	data := make([]byte, length)
	if n, err := o.file.ReadAt(data, offset); n < length {
		return nil, fmt.Errorf("read %s at %d: %w", o.cfg.Path, offset, err)
	}
	if !list.fits(index, data) {
		err := fmt.Errorf("%s has changed since it was hashed, at %d: start the coordinator again", o.cfg.Path, offset)
		o.cfg.Log.Error("the model file has changed", "error", err)
		return nil, err
	}
	return data, nil
}
