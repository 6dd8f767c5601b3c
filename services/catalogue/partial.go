package catalogue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/daisy-llm/daisy/model/gguf"
)

// localError is a failure of this machine, its disk most likely: another source would not help.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

// partial is a file on its way into the cache, under a temporary name. Bytes are hashed as they are written. It belongs to
// the goroutine that holds the lock of its key.
type partial struct {
	path      string
	file      *os.File // nil once finished
	want      wanted
	total     int64 // bytes expected, 0 if unknown
	done      int64 // bytes written and hashed
	inherited bool  // the first bytes are from an earlier run
	sum       hash.Hash
	progress  Progress
}

// openPartial opens or makes the file. What an earlier run left there is used if the whole can be verified in the end.
func openPartial(ctx context.Context, path string, want wanted, progress Progress) (*partial, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, localError{err}
	}
	p := &partial{path: path, file: file, want: want, total: want.size, sum: sha256.New(), progress: progress}
	info, err := file.Stat()
	if err == nil && want.sha256 != "" && info.Size() > 0 && info.Size() <= want.size {
		p.inherited = true
		p.done, err = io.Copy(p.sum, contextReader{ctx, file})
	} else if err == nil {
		err = p.reset()
	}
	if err != nil {
		_ = file.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, localError{err}
	}
	return p, nil
}

// Write appends; it refuses to go beyond the expected size.
func (p *partial) Write(b []byte) (int, error) {
	if p.total > 0 && p.done+int64(len(b)) > p.total {
		return 0, fmt.Errorf("more than the expected %d bytes come", p.total)
	}
	n, err := p.file.Write(b)
	p.done += int64(n)
	p.sum.Write(b[:n])
	if err != nil {
		return n, localError{fmt.Errorf("after %d of %d bytes: %w", p.done, p.total, err)}
	}
	p.progress.Bytes(p.done, p.total)
	return n, nil
}

// reset starts over with an empty file.
func (p *partial) reset() error {
	p.done, p.inherited, p.total = 0, false, p.want.size
	p.sum.Reset()
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return localError{err}
	}
	if err := p.file.Truncate(0); err != nil {
		return localError{err}
	}
	return nil
}

// expect sets the size that a source announces; it must be the catalogue's, if that is known.
func (p *partial) expect(size int64) error {
	if p.want.size > 0 && size != p.want.size {
		return fmt.Errorf("its file has %d bytes, not the expected %d", size, p.want.size)
	}
	p.total = size
	return nil
}

func (p *partial) digest() string { return hex.EncodeToString(p.sum.Sum(nil)) }

// verify checks the whole. Without a known hash it must at least be a model: servers answer with error pages, too.
func (p *partial) verify() error {
	switch {
	case p.want.sha256 == "":
		file, err := gguf.Open(p.path)
		if err != nil {
			return fmt.Errorf("what came is not a model: %w", errors.Unwrap(err))
		}
		return file.Close()
	case p.done != p.want.size:
		return fmt.Errorf("%d bytes came, not the expected %d", p.done, p.want.size)
	case p.digest() != p.want.sha256:
		return fmt.Errorf("%w: got %s, expected %s", ErrWrongHash, p.digest(), p.want.sha256)
	}
	return nil
}

// finish brings the file to the disk and then to its final name.
func (p *partial) finish(path string) error {
	err := p.file.Sync()
	if closeErr := p.file.Close(); err == nil {
		err = closeErr
	}
	p.file = nil
	if err == nil {
		err = os.Rename(p.path, path)
	}
	if err != nil {
		_ = os.Remove(p.path)
		return localError{err}
	}
	// The new name, too, should survive a loss of power. Not every system can sync a folder, and none loses more than
	// the name.
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
	return nil
}

// close ends an attempt that may have failed with err. What came stays for the next run to resume, if it can be trusted
// then, which takes a known hash, and if the disk was not at fault: a full one should not stay full because of us.
func (p *partial) close(err error) {
	if p.file == nil {
		return
	}
	_ = p.file.Close()
	if p.done == 0 || p.want.sha256 == "" || errors.As(err, new(localError)) {
		_ = os.Remove(p.path)
	}
}

// contextReader fails once the context has ended.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(b)
}
