// Package offheap gives large memory that the garbage collector neither scans nor counts: packed weights and caches.
//
// Package model and kvcache call it. The memory is zero at first, aligned to 64 bytes at least, and belongs to the caller
// until Free; using it afterwards crashes, as a use of unmapped memory does.
package offheap

import "fmt"

// Alloc gives size bytes, 1 or more. The system commits pages only as they are written.
func Alloc(size int) ([]byte, error) {
	if size < 1 {
		return nil, fmt.Errorf("allocate %d bytes: it must be 1 or more", size)
	}
	memory, err := alloc(size)
	if err != nil {
		return nil, fmt.Errorf("allocate %d MiB: %w", (size+1<<20-1)>>20, err)
	}
	return memory, nil
}

// Free gives memory from Alloc back, all of it.
func Free(memory []byte) error {
	if len(memory) == 0 {
		return nil
	}
	return free(memory)
}
