package cluster

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// availableMemory is half of what the machine has: what is available is not to be had without cgo.
func availableMemory() (int64, error) {
	total, err := unix.SysctlUint64("hw.memsize")
	if err != nil || total > math.MaxInt64 {
		return 0, fmt.Errorf("%w (hw.memsize: %d, %v)", errUnknownMemory, total, err)
	}
	return int64(total / 2), nil
}
