package weights

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// fromSiblings is what chunks that were copied on this machine are told as.
const fromSiblings = "this machine"

// copySiblings takes what the slots of other shards with this cache folder have. They may be in use, or left over: nothing that
// they have is believed before it fits its hash.
func (f *fetch) copySiblings(ctx context.Context) error {
	base := filepath.Dir(f.slot.dir)
	for i := range maxSlots {
		dir := filepath.Join(base, strconv.Itoa(i))
		if dir == f.slot.dir {
			continue
		}
		if err := f.copySibling(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

func (f *fetch) copySibling(ctx context.Context, dir string) error {
	encoded, err := readList(dir)
	if err != nil || rootOf(encoded) != rootOf(f.slot.encoded) {
		return nil // there is none, or it is of no use
	}
	data, err := os.Open(filepath.Join(dir, dataName))
	if err != nil {
		return nil
	}
	defer data.Close()
	file, err := os.Open(filepath.Join(dir, statesName))
	if err != nil {
		return nil
	}
	defer file.Close()
	states := make([]byte, len(f.slot.states))
	if _, err := file.ReadAt(states, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	f.mu.Lock()
	waiting := slices.Clone(f.waiting)
	f.mu.Unlock()
	for _, i := range waiting {
		if states[i] == absent {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		offset, length := f.slot.list.span(i)
		chunk := make([]byte, length)
		if n, _ := data.ReadAt(chunk, offset); n < length || !f.slot.list.fits(i, chunk) {
			continue
		}
		if err := f.slot.put(i, chunk); err != nil {
			return f.cache.diskError(fmt.Errorf("keep a chunk: %w", err), f.remaining())
		}
		f.copied(i)
	}
	return nil
}

// copied takes a chunk off those that are waited for.
func (f *fetch) copied(i int) {
	f.mu.Lock()
	if at, found := slices.BinarySearch(f.waiting, i); found {
		f.waiting = slices.Delete(f.waiting, at, at+1)
		f.asked[i] = &asks{count: 1}
	}
	f.mu.Unlock()
	f.finish(i, fromSiblings)
}
