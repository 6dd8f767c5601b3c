package catalogue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// memo is one remembered hash, a small file of its own so that processes need not agree on a common one.
type memo struct {
	Path   string `json:"path"`  // of the file, or the source
	State  string `json:"state"` // of the file when it was hashed
	SHA256 string `json:"sha256"`
}

// Hash gives the SHA-256 of a file, in lower-case hexadecimal. It remembers it, for all processes with this cache folder,
// as long as the file's size, time of change and identity stay the same.
func (s *Store) Hash(ctx context.Context, path string) (string, error) {
	return s.hash(ctx, path, silent{})
}

func (s *Store) hash(ctx context.Context, path string, progress Progress) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("hash: %w", err)
	}
	key := hashKey(path)
	if sum, ok := s.remembered(key, path); ok {
		return sum, nil
	}
	// Shards of one machine start together: one of them hashes, the others wait for its result. A cache folder that
	// cannot be written to is no reason not to hash.
	unlock, err := s.lock(ctx, key, progress)
	if ctx.Err() != nil {
		return "", fmt.Errorf("hash %s: %w", path, context.Cause(ctx))
	}
	if err == nil {
		defer unlock()
		if sum, ok := s.remembered(key, path); ok {
			return sum, nil
		}
	}
	sum, before, err := hashFile(ctx, path, progress)
	if err != nil {
		return "", fmt.Errorf("hash %s: %w", path, err)
	}
	_ = s.remember(key, memo{Path: path, State: before, SHA256: sum}) // else it is hashed again next time
	return sum, nil
}

// hashFile also gives the state that the file had before it was read: should it change meanwhile, the memo is void.
func hashFile(ctx context.Context, path string, progress Progress) (sum, before string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", "", err
	}
	if !info.Mode().IsRegular() { // a pipe could keep us waiting for ever
		return "", "", fmt.Errorf("it is not a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return "", "", err
	}
	defer file.Close()
	progress.Note("checking " + path)
	h := sha256.New()
	buffer := make([]byte, 1<<20)
	for done := int64(0); ; {
		n, err := contextReader{ctx, file}.Read(buffer)
		h.Write(buffer[:n])
		done += int64(n)
		progress.Bytes(done, info.Size())
		switch {
		case err == io.EOF:
			return hex.EncodeToString(h.Sum(nil)), state(info), nil
		case err != nil:
			return "", "", err
		}
	}
}

func (s *Store) remembered(key, path string) (string, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return "", false
	}
	m := s.read(key)
	return m.SHA256, isSHA256(m.SHA256) && m.Path == path && m.State == state(info)
}

// recall gives what remember was last given for key, or nothing.
func (s *Store) recall(key string) string { return s.read(key).SHA256 }

func (s *Store) read(key string) memo {
	var m memo
	data, err := os.ReadFile(s.memoPath(key))
	if err != nil || json.Unmarshal(data, &m) != nil {
		return memo{}
	}
	return m
}

// remember replaces the memo of key at once: readers see the old one or the new one.
func (s *Store) remember(key string, m memo) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	path := s.memoPath(key)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), key+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
	return err
}

func (s *Store) memoPath(key string) string {
	return filepath.Join(s.config.Dir, "hashes", key+".json")
}

func hashKey(path string) string { return "file-" + textSum(path) }

// textSum makes a file name of any text.
func textSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// state changes whenever a file's content does, unless someone takes pains to hide it.
func state(info fs.FileInfo) string {
	return fmt.Sprintf("%d bytes, changed %d, %s", info.Size(), info.ModTime().UnixNano(), identity(info))
}
