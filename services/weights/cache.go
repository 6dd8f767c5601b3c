package weights

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/pass"
	"github.com/daisy-llm/daisy/shard"
)

// Peer is a shard that may have chunks.
type Peer struct{ Name, Address string }

// Remote is a connection to one.
type Remote interface {
	pass.Weights
	Close() error
}

// CacheConfig describes what a shard has of model files.
type CacheConfig struct {
	Dir   string // the cache folder, which shards of one machine may share
	Owner string // the shard's name: its slots are found again by it

	// Peers lists the other shards of the cluster, of which some are asked.
	Peers func() []Peer
	// Dial makes a connection to one of them; it need not wait until there is one.
	Dial func(Peer) (Remote, error)

	Log *slog.Logger
}

// Cache is what one shard has of model files, and the way in which it gets more. Its methods may be called from several
// goroutines at once.
type Cache struct {
	cfg     CacheConfig
	limits  limits
	reads   chan struct{} // capacity maxReads: chunks are read for others
	opening chan struct{} // capacity 1: a slot is being opened

	mu         sync.Mutex
	slots      map[string]*slot    // by the file's SHA-256
	wholes     map[string]*os.File // files that are here as a whole, by SHA-256
	supplies   map[*supply]bool
	changed    chan struct{}        // closed and replaced when supplies change
	distrusted map[string]time.Time // sources that gave wrong bytes, until when
}

// supply is a coordinator's offer to give chunks.
type supply struct {
	name string
	from pass.Weights
}

// NewCache makes a cache. Nothing is read or written yet.
func NewCache(cfg CacheConfig) (*Cache, error) {
	if cfg.Dir == "" || cfg.Owner == "" || cfg.Peers == nil || cfg.Dial == nil || cfg.Log == nil {
		return nil, errors.New("weights: cache with a part missing: folder, owner, peers, dial or log")
	}
	return &Cache{
		cfg: cfg, limits: defaultLimits(), reads: make(chan struct{}, maxReads), opening: make(chan struct{}, 1),
		slots: make(map[string]*slot), wholes: make(map[string]*os.File), supplies: make(map[*supply]bool),
		changed: make(chan struct{}), distrusted: make(map[string]time.Time),
	}, nil
}

// Close lets other processes have the slots. Files that Open gave stay usable.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for sum, s := range c.slots {
		errs = append(errs, s.close())
		delete(c.slots, sum)
	}
	for sum, f := range c.wholes {
		errs = append(errs, f.Close())
		delete(c.wholes, sum)
	}
	return errors.Join(errs...)
}

// Add tells of a whole file that is here anyway, so that others can have chunks of it.
func (c *Cache) Add(sha256, path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wholes[sha256] != nil {
		return nil
	}
	file, err := os.Open(path)
	if err == nil {
		c.wholes[sha256] = file
	}
	return err
}

// Offer tells of a coordinator that gives chunks until it is withdrawn.
func (c *Cache) Offer(coordinator string, from pass.Weights) (withdraw func()) {
	s := &supply{"coordinator " + coordinator, from}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.supplies[s] = true
	c.announceLocked()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.supplies, s)
		c.announceLocked()
	}
}

func (c *Cache) announceLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// offers are the coordinators that give chunks now; changed is closed when others do.
func (c *Cache) offers() (now []*supply, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.supplies)), c.changed
}

// Open opens a model file of which, for now, only the header need be there. It fails with shard.ErrNoFile where nothing is here
// and the Load does not name the list of its chunks.
func (c *Cache) Open(ctx context.Context, load pass.Load) (*gguf.File, error) {
	s, err := c.slot(ctx, load)
	if err != nil {
		return nil, err
	}
	header := make(map[int]bool)
	s.list.cover(header, 0, s.list.Header)
	if err := c.bring(ctx, s, load, header, func(int64, int64) {}); err != nil {
		return nil, fmt.Errorf("fetch the header of %s: %w", load.Model, err)
	}
	return gguf.Open(s.path())
}

// Fetch brings the data of tensors into a file that Open gave. Where the file is here as a whole there is nothing to do.
func (c *Cache) Fetch(ctx context.Context, load pass.Load, tensors []*gguf.Tensor, progress func(done, total int64)) error {
	c.mu.Lock()
	s := c.slots[load.SHA256]
	c.mu.Unlock()
	if s == nil {
		return nil
	}
	if err := c.bring(ctx, s, load, s.list.chunksOf(tensors), progress); err != nil {
		return fmt.Errorf("fetch weights: %w", err)
	}
	return nil
}

// Keep gives up what is neither header nor data of the tensors.
func (c *Cache) Keep(load pass.Load, tensors []*gguf.Tensor) {
	c.mu.Lock()
	s := c.slots[load.SHA256]
	c.mu.Unlock()
	if s == nil {
		return
	}
	n, err := s.keep(s.list.chunksOf(tensors))
	if err != nil {
		c.cfg.Log.Warn("weights that are no longer needed stay on the disk", "folder", s.dir, "error", err)
	} else if n > 0 {
		c.cfg.Log.Info("gave up weights that are no longer needed here", "model", load.Model, "chunks", n)
	}
}

// chunksOf are the chunks that tensors, and the header, lie in.
func (l *List) chunksOf(tensors []*gguf.Tensor) map[int]bool {
	set := make(map[int]bool)
	l.cover(set, 0, l.Header)
	for _, t := range tensors {
		l.cover(set, t.Offset, t.Offset+int64(len(t.Data)))
	}
	return set
}

// base is where all slots of a file are.
func (c *Cache) base(sha256 string) string { return filepath.Join(c.cfg.Dir, "chunks", sha256) }

// slot opens this shard's part of a file.
func (c *Cache) slot(ctx context.Context, load pass.Load) (*slot, error) {
	select {
	case c.opening <- struct{}{}:
		defer func() { <-c.opening }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	c.mu.Lock()
	s := c.slots[load.SHA256]
	c.mu.Unlock()
	if s != nil {
		if load.Root != "" && load.Root != rootOf(s.encoded) {
			return nil, fmt.Errorf("the coordinator cuts %s into other chunks than those that are here: start this shard again", load.Model)
		}
		return s, nil
	}
	if load.Root == "" {
		return nil, fmt.Errorf("%w: %s with SHA-256 %s", shard.ErrNoFile, load.Model, load.SHA256)
	}
	for _, text := range []string{load.SHA256, load.Root} { // the first becomes part of a path
		if _, err := parseHash(text); err != nil {
			return nil, err
		}
	}
	dir, lock, err := claim(c.base(load.SHA256), c.cfg.Owner)
	if err != nil {
		return nil, c.diskError(err, load.Bytes)
	}
	encoded, err := readList(dir)
	if err != nil || rootOf(encoded) != load.Root {
		encoded, err = c.bringList(ctx, load)
	}
	var list *List
	if err == nil {
		list, err = parseList(encoded, load.SHA256)
	}
	if err == nil && list.Size != load.Bytes {
		err = fmt.Errorf("the list is of a file of %d bytes, the coordinator's has %d", list.Size, load.Bytes)
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("the list of the chunks of %s: %w", load.Model, err)
	}
	if s, err = openSlot(dir, lock, encoded, list); err != nil {
		return nil, c.diskError(err, int64(len(encoded)))
	}
	c.mu.Lock()
	c.slots[load.SHA256] = s
	c.mu.Unlock()
	return s, nil
}

// diskError says what to do about a disk that takes no more.
func (c *Cache) diskError(err error, missing int64) error {
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("the disk of %s is full, and %d MiB more are needed there: make room, or give this shard another --cache-dir: %w", c.cfg.Dir, (missing+1<<20-1)>>20, err)
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s cannot be written to, and this shard has no file of the model: give it another --cache-dir: %w", c.cfg.Dir, err)
	}
	return err
}

// List gives a list to another shard.
func (c *Cache) List(_ context.Context, sha256, root string) ([]byte, error) {
	c.mu.Lock()
	s := c.slots[sha256]
	c.mu.Unlock()
	if s == nil || rootOf(s.encoded) != root {
		return nil, pass.ErrNotHeld
	}
	return s.encoded, nil
}

// Held tells another shard what is here.
func (c *Cache) Held(_ context.Context, sha256 string, chunkBytes int) ([]byte, error) {
	s, file, size, err := c.find(sha256, chunkBytes)
	if err != nil {
		return nil, err
	}
	if file != nil {
		return bitmap(int((size+int64(chunkBytes)-1)/int64(chunkBytes)), func(int) bool { return true }), nil
	}
	return s.held(), nil
}

// Chunk gives a chunk to another shard.
func (c *Cache) Chunk(ctx context.Context, sha256 string, chunkBytes, index int) ([]byte, error) {
	s, file, size, err := c.find(sha256, chunkBytes)
	if err != nil {
		return nil, err
	}
	select {
	case c.reads <- struct{}{}:
		defer func() { <-c.reads }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if file == nil {
		if index < 0 || index >= len(s.states) {
			return nil, pass.ErrNotHeld
		}
		data, err := s.give(index)
		if errors.Is(err, errDamaged) {
			c.cfg.Log.Warn("a chunk in the cache is damaged; it is fetched again when it is needed", "folder", s.dir, "chunk", index)
			err = pass.ErrNotHeld
		}
		return data, err
	}
	offset := int64(index) * int64(chunkBytes)
	if index < 0 || offset >= size {
		return nil, pass.ErrNotHeld
	}
	data := make([]byte, min(int64(chunkBytes), size-offset))
	if n, err := file.ReadAt(data, offset); n < len(data) {
		return nil, err
	}
	return data, nil
}

// find looks for a file that is here as a whole, or else in part.
func (c *Cache) find(sha256 string, chunkBytes int) (*slot, *os.File, int64, error) {
	c.mu.Lock()
	s, file := c.slots[sha256], c.wholes[sha256]
	c.mu.Unlock()
	if chunkBytes < pass.MinChunkBytes || chunkBytes > pass.ChunkBytes {
		return nil, nil, 0, pass.ErrNotHeld
	}
	if file != nil {
		info, err := file.Stat()
		if err != nil || info.Size() > int64(chunkBytes)*pass.MaxChunks {
			return nil, nil, 0, pass.ErrNotHeld
		}
		return nil, file, info.Size(), nil
	}
	if s == nil || s.list.Chunk != chunkBytes {
		return nil, nil, 0, pass.ErrNotHeld
	}
	return s, nil, 0, nil
}
