package weights

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
)

// maxSlots bounds how many shards share a cache folder.
const maxSlots = 256

// claim finds a slot below base that no other process has, and locks it: the one that owner had the last time, else any, else a
// new one. A slot that belonged to another shard is better than none: it may hold something of use, and is not left to rot.
func claim(base, owner string) (dir string, lock *flock.Flock, err error) {
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", nil, err
	}
	for range maxSlots { // as often as others may be faster
		dirs, err := candidates(base, owner)
		if err != nil {
			return "", nil, err
		}
		for _, dir := range dirs {
			lock, err := tryLock(dir)
			if err != nil {
				return "", nil, err
			}
			if lock == nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, ownerName), []byte(owner+"\n"), 0o644); err != nil {
				_ = lock.Close()
				return "", nil, err
			}
			return dir, lock, nil
		}
	}
	return "", nil, fmt.Errorf("%d shards have their part of the model below %s: give this one another --cache-dir", maxSlots, base)
}

// candidates are the slots there are, those of owner first, and a new one.
func candidates(base, owner string) (dirs []string, err error) {
	var others []string
	fresh := ""
	for i := range maxSlots {
		dir := filepath.Join(base, strconv.Itoa(i))
		name, err := os.ReadFile(filepath.Join(dir, ownerName))
		switch {
		case err == nil && strings.TrimSpace(string(name)) == owner:
			dirs = append(dirs, dir)
		case err == nil:
			others = append(others, dir)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case fresh == "":
			fresh = dir
		}
	}
	dirs = append(dirs, others...)
	if fresh != "" {
		dirs = append(dirs, fresh)
	}
	return dirs, nil
}

// tryLock returns nil where another process has the lock. The file stays when it is unlocked: to remove one that another process
// is about to lock would give it to both.
func tryLock(dir string) (*flock.Flock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(dir, lockName))
	locked, err := lock.TryLock()
	if err != nil || !locked {
		_ = lock.Close()
		if err != nil {
			err = fmt.Errorf("lock %s: %w", lock.Path(), err)
		}
		return nil, err
	}
	return lock, nil
}
