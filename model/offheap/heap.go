//go:build !unix

package offheap

// alloc falls back to the Go heap: slices without pointers are not scanned, and large ones are aligned to pages.
func alloc(size int) ([]byte, error) { return make([]byte, size, max(size, 1<<16))[:size:size], nil }

func free([]byte) error { return nil }
