package weights

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/daisy-llm/daisy/pass"
)

// Hash is the SHA-256 of a chunk.
type Hash = [sha256.Size]byte

// List says what the chunks of one model file are. Its encoding is
//
//	"daisy chunks 1\n", then as little-endian uint64: size, header, bytes of a chunk; the file's SHA-256; the chunks' SHA-256
//
// and the SHA-256 of that is the list's root, its name among those who must agree on it.
type List struct {
	SHA256 Hash
	Size   int64 // bytes of the file
	Header int64 // of them, before the first tensor's data
	Chunk  int   // bytes of each chunk but the last
	Hashes []Hash
}

const (
	listMagic  = "daisy chunks 1\n"
	listHeader = len(listMagic) + 3*8 + sha256.Size
)

// check bounds what follows from size and chunk.
func (l *List) check() error {
	switch {
	case l.Chunk < pass.MinChunkBytes || l.Chunk > pass.ChunkBytes || l.Chunk%pass.MinChunkBytes != 0:
		return fmt.Errorf("chunks of %d bytes: %d to %d, in steps of %[2]d, are possible", l.Chunk, pass.MinChunkBytes, pass.ChunkBytes)
	case l.Size < 1 || l.Header < 1 || l.Header > l.Size:
		return fmt.Errorf("a header of %d bytes in a file of %d", l.Header, l.Size)
	case l.Size > int64(l.Chunk)*pass.MaxChunks:
		return fmt.Errorf("a file of %d bytes has more than %d chunks of %d", l.Size, pass.MaxChunks, l.Chunk)
	}
	return nil
}

// count is how many chunks there are.
func (l *List) count() int { return int((l.Size + int64(l.Chunk) - 1) / int64(l.Chunk)) }

// span is where a chunk lies.
func (l *List) span(index int) (offset int64, length int) {
	offset = int64(index) * int64(l.Chunk)
	return offset, int(min(int64(l.Chunk), l.Size-offset))
}

// fits says whether bytes are those of a chunk.
func (l *List) fits(index int, data []byte) bool { return sha256.Sum256(data) == l.Hashes[index] }

// cover adds the chunks that have bytes in [from, to) to a set.
func (l *List) cover(set map[int]bool, from, to int64) {
	for i := from / int64(l.Chunk); from < to && i <= (to-1)/int64(l.Chunk); i++ {
		set[int(i)] = true
	}
}

func (l *List) encode() []byte {
	out := make([]byte, 0, listHeader+len(l.Hashes)*sha256.Size)
	out = append(out, listMagic...)
	for _, n := range []int64{l.Size, l.Header, int64(l.Chunk)} {
		out = binary.LittleEndian.AppendUint64(out, uint64(n))
	}
	out = append(out, l.SHA256[:]...)
	for i := range l.Hashes {
		out = append(out, l.Hashes[i][:]...)
	}
	return out
}

// rootOf names an encoded list.
func rootOf(encoded []byte) string {
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:])
}

// parseList reads a list of the file of a SHA-256.
func parseList(data []byte, file string) (*List, error) {
	if len(data) < listHeader || string(data[:len(listMagic)]) != listMagic {
		return nil, errors.New("it is no list of chunks")
	}
	l := &List{SHA256: Hash(data[listHeader-sha256.Size:])}
	var numbers [3]int64
	for i := range numbers {
		n := binary.LittleEndian.Uint64(data[len(listMagic)+8*i:])
		numbers[i] = int64(min(n, 1<<62))
	}
	l.Size, l.Header, l.Chunk = numbers[0], numbers[1], int(min(numbers[2], pass.ChunkBytes+1))
	if err := l.check(); err != nil {
		return nil, err
	}
	if got := hex.EncodeToString(l.SHA256[:]); got != file {
		return nil, fmt.Errorf("it is of the file with SHA-256 %s, not of %s", got, file)
	}
	rest := data[listHeader:]
	if want := l.count() * sha256.Size; len(rest) != want {
		return nil, fmt.Errorf("it has %d bytes of hashes, not %d", len(rest), want)
	}
	l.Hashes = make([]Hash, l.count())
	for i := range l.Hashes {
		l.Hashes[i] = Hash(rest[i*sha256.Size:])
	}
	return l, nil
}

// measure reads a file once, and makes its list; the file must have the hash that it is known by.
func measure(ctx context.Context, r io.ReaderAt, l List) (*List, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	l.Hashes = make([]Hash, l.count())
	type piece struct {
		index int
		data  []byte
	}
	// Two hashes of every byte, on two cores: of the whole and of the chunk.
	pieces, free := make(chan piece), make(chan []byte, 3)
	for range cap(free) {
		free <- make([]byte, l.Chunk)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(pieces)
		for i := range l.Hashes {
			var buffer []byte
			select {
			case buffer = <-free:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			offset, length := l.span(i)
			if n, err := r.ReadAt(buffer[:length], offset); n < length {
				return fmt.Errorf("read at %d: %w", offset, err)
			}
			l.Hashes[i] = sha256.Sum256(buffer[:length])
			select {
			case pieces <- piece{i, buffer[:length]}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	whole := sha256.New()
	g.Go(func() error {
		for p := range pieces {
			whole.Write(p.data)
			free <- p.data[:l.Chunk] // has room for all
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if !bytes.Equal(whole.Sum(nil), l.SHA256[:]) {
		return nil, errors.New("the file is no longer the one that was loaded: it has another SHA-256 by now")
	}
	return &l, nil
}

// parseHash reads a SHA-256 in lower-case hex, which may become a file's name.
func parseHash(text string) (h Hash, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(h) || hex.EncodeToString(raw) != text {
		return h, fmt.Errorf("%.80q is no SHA-256", text)
	}
	return Hash(raw), nil
}
