package pass

import (
	"context"
	"errors"
)

// Bounds of the pieces in which a model file travels to shards that do not have it.
const (
	ChunkBytes    = MaxFrameBytes // of a chunk at most
	MinChunkBytes = 4 << 10       // a page: holes in files are made of these
	MaxChunks     = 1 << 20       // of a file: a tebibyte in the largest chunks
	MaxListBytes  = 64 << 20      // of the list of their hashes
)

// ErrNotHeld: a giver of weights does not have what it was asked for.
var ErrNotHeld = errors.New("it does not have that")

// Weights gives pieces of model files, which are named by the SHA-256 of the whole file, in lower-case hex. What it gives is
// not to be believed before it is held against a hash. Its methods may be called from several goroutines at once.
type Weights interface {
	// List gives the encoded list of a file's chunk hashes, the SHA-256 of which should be root.
	List(ctx context.Context, sha256, root string) ([]byte, error)
	// Held says which chunks of so many bytes there are: a bit for each, the first in the lowest bit of the first byte.
	Held(ctx context.Context, sha256 string, chunkBytes int) ([]byte, error)
	// Chunk gives one of them. The bytes are the caller's.
	Chunk(ctx context.Context, sha256 string, chunkBytes, index int) ([]byte, error)
}
