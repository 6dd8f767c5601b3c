package cluster

import (
	"errors"
	"fmt"
)

var errUnknownMemory = errors.New("cannot tell how much memory this machine has: say how much to offer")

// OfferedMemory is what a shard offers unless the operator says otherwise, in bytes: the memory that this process may
// still use, divided by the shards on this machine.
func OfferedMemory(shardsOnThisMachine int) (int64, error) {
	if shardsOnThisMachine < 1 {
		return 0, fmt.Errorf("%d shards on this machine are not possible", shardsOnThisMachine)
	}
	available, err := availableMemory()
	if err != nil {
		return 0, err
	}
	return available / int64(shardsOnThisMachine), nil
}
