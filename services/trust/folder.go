package trust

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// A folder keeps secrets: nobody but its owner, and perhaps a group that the operator chose, may read it.
type folder string

const maxFile = 1 << 20

// make creates the folder, for the owner alone.
func (f folder) make() error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return fmt.Errorf("keep keys in %s: %w", f, err)
	}
	return nil
}

func (f folder) path(name string) string { return filepath.Join(string(f), name) }

// read returns fs.ErrNotExist if there is no such file.
func (f folder) read(name string) ([]byte, error) {
	path := f.path(name)
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return nil, fmt.Errorf("%s is no file of Daisy's", path)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0: // Windows has no such bits
		return nil, fmt.Errorf("%s may be read by every user of this machine: chmod 600 it, and make what it holds anew if they are not trusted", path)
	}
	return io.ReadAll(io.LimitReader(file, maxFile))
}

// write replaces a file as a whole: a reader, or a crash, finds the old one or the new one.
func (f folder) write(name string, content []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", f.path(name), err)
		}
	}()
	file, err := os.CreateTemp(string(f), "."+name+"-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // does nothing once it has its name
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), f.path(name))
}

// readPEM reads a file's blocks of one type, at least one.
func (f folder) readPEM(name, kind string) (blocks [][]byte, err error) {
	rest, err := f.read(name)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == kind {
			blocks = append(blocks, block.Bytes)
		}
	}
	if len(blocks) == 0 {
		return nil, fmt.Errorf("%s holds no %s: it is damaged", f.path(name), kind)
	}
	return blocks, nil
}

// lock waits until no other process changes the folder.
func (f folder) lock(ctx context.Context, name string) (unlock func(), err error) {
	l := flock.New(f.path(name), flock.SetPermissions(0o600))
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := l.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.path(name), err), l.Close())
	}
	return func() { _ = l.Close() }, nil
}

// errInUse: the folder belongs to a process that runs.
var errInUse = errors.New("another process uses it")

// own locks without waiting.
func (f folder) own(name string) (release func(), err error) {
	l := flock.New(f.path(name), flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	if err == nil && !ok {
		err = errInUse
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f, err), l.Close())
	}
	return func() { _ = l.Close() }, nil
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
