package catalogue

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// lock makes this goroutine the only one, of all processes with this cache folder, to work on key. If it has to wait, it
// says so. Lock files stay: to remove one that another process is about to lock would give it to both.
func (s *Store) lock(ctx context.Context, key string, progress Progress) (unlock func(), err error) {
	s.mu.Lock()
	gate := s.gates[key]
	if gate == nil {
		gate = make(chan struct{}, 1)
		s.gates[key] = gate
	}
	s.mu.Unlock()

	// Within the process by a channel: where file locks belong to a process they exclude no other goroutine.
	waiting := "waiting: the same file is being fetched or hashed already"
	select {
	case gate <- struct{}{}:
	default:
		progress.Note(waiting)
		select {
		case gate <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer func() {
		if err != nil {
			<-gate
		}
	}()

	dir := filepath.Join(s.config.Dir, "locks")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("lock the cache folder: %w", err)
	}
	file := flock.New(filepath.Join(dir, key))
	locked, err := file.TryLock()
	if err == nil && !locked {
		progress.Note(waiting + ", by another process")
		_, err = file.TryLockContext(ctx, 100*time.Millisecond)
	}
	if err != nil {
		_ = file.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("lock %s: %w", file.Path(), err)
	}
	return func() {
		_ = file.Close() // releases the lock, as the process's end would
		<-gate
	}, nil
}
