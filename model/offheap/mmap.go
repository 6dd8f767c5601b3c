//go:build unix

package offheap

import "golang.org/x/sys/unix"

func alloc(size int) ([]byte, error) {
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	adviseHuge(memory)
	return memory, nil
}

func free(memory []byte) error { return unix.Munmap(memory) }
