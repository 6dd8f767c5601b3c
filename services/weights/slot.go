package weights

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/gofrs/flock"

	"github.com/daisy-llm/daisy/pass"
)

// Files of a slot.
const (
	lockName   = "lock"
	ownerName  = "owner"
	listName   = "list"
	statesName = "states"
	dataName   = "model.gguf"
)

// States of a chunk.
const (
	absent  = 0
	written = 1 // by a process that may have been killed since, on a machine that may have lost power since
	safe    = 2 // on the disk
)

// slot is what one process has of one model file.
type slot struct {
	dir  string
	lock *flock.Flock
	list *List
	data disk

	encoded  []byte        // list, as it travels
	fetching chan struct{} // capacity 1: chunks are being fetched, or looked through
	punching sync.RWMutex  // locked while chunks become holes, locked to read while one is read for others

	mu     sync.Mutex
	file   disk   // states, on the disk
	states []byte // of every chunk
}

// disk is what a slot needs of a file.
type disk interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
}

// openSlot opens the files of a slot that is locked already. What they hold of a list of another root is not believed.
func openSlot(dir string, lock *flock.Flock, encoded []byte, list *List) (_ *slot, err error) {
	s := &slot{dir: dir, lock: lock, list: list, encoded: encoded, fetching: make(chan struct{}, 1), states: make([]byte, list.count())}
	same := false
	if old, err := readList(dir); err == nil {
		same = rootOf(old) == rootOf(encoded)
	}
	data, err := os.OpenFile(filepath.Join(dir, dataName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.close()
		}
	}()
	s.data = data
	states, err := os.OpenFile(filepath.Join(dir, statesName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	s.file = states
	info, err := data.Stat()
	if err != nil {
		return nil, err
	}
	n, err := states.ReadAt(s.states, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if info.Size() != list.Size || n < len(s.states) {
		clear(s.states)
		if err := data.Truncate(0); err != nil {
			return nil, err
		}
	}
	for i, state := range s.states {
		if state > safe || state == safe && !same {
			s.states[i] = written // to be checked before it is used
		}
	}
	if _, err := states.WriteAt(s.states, 0); err != nil {
		return nil, err
	}
	if err := data.Truncate(list.Size); err != nil {
		return nil, err
	}
	if !same {
		err = writeList(dir, encoded)
	}
	return s, err
}

// readList reads the encoded list of a slot.
func readList(dir string) ([]byte, error) {
	path := filepath.Join(dir, listName)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > pass.MaxListBytes {
		return nil, fmt.Errorf("%s has %d bytes: it is no list", path, info.Size())
	}
	return os.ReadFile(path)
}

// writeList replaces a list at once: others see the old one or the new one.
func writeList(dir string, encoded []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, listName+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(encoded)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file.Name(), filepath.Join(dir, listName))
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
	return err
}

func (s *slot) path() string { return filepath.Join(s.dir, dataName) }

// close lets another process have the slot.
func (s *slot) close() error {
	var errs []error
	for _, f := range []disk{s.data, s.file} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// state of a chunk.
func (s *slot) state(index int) byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states[index]
}

// mark changes the state of a chunk, here and on the disk.
func (s *slot) mark(index int, state byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.file.WriteAt([]byte{state}, int64(index)); err != nil {
		return err
	}
	s.states[index] = state
	return nil
}

// read gives a chunk if it is there and fits its hash. One that does not is absent from then on.
func (s *slot) read(index int) ([]byte, error) {
	if s.state(index) == absent {
		return nil, pass.ErrNotHeld
	}
	offset, length := s.list.span(index)
	data := make([]byte, length)
	if n, err := s.data.ReadAt(data, offset); n < length {
		return nil, err
	}
	if !s.list.fits(index, data) {
		return nil, errors.Join(errDamaged, s.mark(index, absent))
	}
	return data, nil
}

// errDamaged: the disk gives other bytes than were written to it.
var errDamaged = errors.New("it does not fit its hash")

// give is read for others: no chunk becomes a hole meanwhile.
func (s *slot) give(index int) ([]byte, error) {
	s.punching.RLock()
	defer s.punching.RUnlock()
	return s.read(index)
}

// put writes a chunk that fits its hash.
func (s *slot) put(index int, data []byte) error {
	offset, _ := s.list.span(index)
	if _, err := s.data.WriteAt(data, offset); err != nil {
		return err
	}
	return s.mark(index, written)
}

// missing is which of the chunks are not there. Those that were only written are checked.
func (s *slot) missing(ctx context.Context, chunks []int) (missing []int, err error) {
	for _, i := range chunks {
		if s.state(i) == written {
			if _, err := s.read(i); err != nil && !errors.Is(err, errDamaged) {
				return nil, err
			}
		}
		if s.state(i) == absent {
			missing = append(missing, i)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return missing, nil
}

// settle brings what was written to the disk.
func (s *slot) settle(chunks []int) error {
	var fresh []int
	for _, i := range chunks {
		if s.state(i) == written {
			fresh = append(fresh, i)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := s.data.Sync(); err != nil {
		return err
	}
	for _, i := range fresh {
		if err := s.mark(i, safe); err != nil {
			return err
		}
	}
	return nil
}

// keep makes holes of all chunks but those wanted, and says how many there were.
func (s *slot) keep(wanted map[int]bool) (given int, err error) {
	file, ok := s.data.(*os.File)
	if !ok || !canPunch {
		return 0, nil
	}
	s.punching.Lock()
	defer s.punching.Unlock()
	var rest []int
	for i := range s.states {
		if !wanted[i] && s.state(i) != absent {
			rest = append(rest, i)
		}
	}
	if len(rest) == 0 {
		return 0, nil
	}
	for _, i := range rest {
		if err := s.mark(i, absent); err != nil {
			return 0, err
		}
	}
	if err := s.file.Sync(); err != nil { // no chunk may be a hole while the disk says that it is there
		return 0, err
	}
	for _, i := range rest {
		offset, length := s.list.span(i)
		if err := punch(file, offset, int64(length)); err != nil {
			return 0, err
		}
	}
	return len(rest), nil
}

// held is a bit for each chunk that is there.
func (s *slot) held() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bitmap(len(s.states), func(i int) bool { return s.states[i] != absent })
}

// bitmap has a bit for each chunk, the first in the lowest bit of the first byte.
func bitmap(count int, has func(int) bool) []byte {
	bits := make([]byte, (count+7)/8)
	for i := range count {
		if has(i) {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	return bits
}

func hasBit(bits []byte, i int) bool { return i/8 < len(bits) && bits[i/8]>>(i%8)&1 == 1 }
