//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package gguf

import (
	"io"
	"os"
)

// Without a mapping the file is read whole: correct, and as large in memory as on disk.
func mapFile(f *os.File, size int) ([]byte, error) {
	data := make([]byte, size)
	_, err := io.ReadFull(f, data)
	return data, err
}

func unmapFile([]byte) error { return nil }

func releasePages([]byte, int, int) {}
