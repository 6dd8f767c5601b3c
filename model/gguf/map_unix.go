//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package gguf

import (
	"os"

	"golang.org/x/sys/unix"
)

func mapFile(f *os.File, size int) ([]byte, error) {
	return unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
}

func unmapFile(data []byte) error { return unix.Munmap(data) }

// releasePages gives back the pages that hold data[from:to]. Those at the edges, shared with a neighbour, go too: they
// are read again from the page cache when touched, which is cheap, while keeping them would leave two pages a tensor.
func releasePages(data []byte, from, to int) {
	from -= from % os.Getpagesize() // the mapping itself starts on a page
	if from < to {
		_ = unix.Madvise(data[from:to], unix.MADV_DONTNEED) // advice: nothing depends on its being taken
	}
}
