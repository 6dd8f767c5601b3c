package main

import "golang.org/x/sys/unix"

// availableMemory is half of the memory: macOS does not say simply what is available, and compresses what is idle.
func availableMemory() int64 {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0
	}
	return int64(n / 2)
}
