package plan

import (
	"errors"
	"fmt"
)

var (
	// ErrNoShards: the roster has no shard that can be planned on.
	ErrNoShards = errors.New("no shards")
	// ErrFewShards: more stages were asked for than there are shards.
	ErrFewShards = errors.New("too few shards")
)

// ShortError says that the shards' memory does not suffice, and by how much; all sizes are bytes.
type ShortError struct {
	Model   string
	Needed  int64  // in total
	Offered int64  // in total
	Missing int64  // above 0
	Piece   string // set where the total would do, but this piece fits no shard; Needed and Offered are then the piece's and the largest shard's
}

func (e *ShortError) Error() string {
	if e.Piece != "" {
		return fmt.Sprintf("not enough memory for %s: %s needs %s on one shard, the largest offers %s: %s missing",
			e.Model, e.Piece, formatBytes(e.Needed), formatBytes(e.Offered), formatBytes(e.Missing))
	}
	return fmt.Sprintf("not enough memory for %s: it needs %s, the shards offer %s: %s missing",
		e.Model, formatBytes(e.Needed), formatBytes(e.Offered), formatBytes(e.Missing))
}

// formatBytes writes a size as people read it: "3.2 GiB".
func formatBytes(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n)/1024, 0
	for size >= 1023.95 && unit < len(units)-1 {
		size, unit = size/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", size, units[unit])
}
