package cluster

import (
	"errors"
	"fmt"
)

var errUnknownMemory = errors.New("cannot tell how much memory this machine has: say how much to offer")

// besideBlocks is what a shard's process takes besides the blocks that it offers memory for: its code, its connections, and what is on its way.
const besideBlocks = 16 << 20

// OfferedMemory is what a shard offers unless the operator says otherwise, in bytes: the memory that this process may
// still use, divided by the shards on this machine, less what each of them needs for itself.
func OfferedMemory(shardsOnThisMachine int) (int64, error) {
	if shardsOnThisMachine < 1 {
		return 0, fmt.Errorf("%d shards on this machine are not possible", shardsOnThisMachine)
	}
	available, err := availableMemory()
	if err != nil {
		return 0, err
	}
	return max(0, available/int64(shardsOnThisMachine)-besideBlocks), nil
}

// MemoryLimit is what a process can have here at most, in bytes, whatever else runs: all that the machine has, or what the control groups of
// this process allow. Not every system says.
func MemoryLimit() (int64, error) { return memoryLimit() }

// MemoryRoom is what this process can come to hold as things are now, in bytes: what it holds, and what is still available. Not every
// system says.
func MemoryRoom() (int64, error) { return memoryRoom() }
