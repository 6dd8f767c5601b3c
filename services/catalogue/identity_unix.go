//go:build unix

package catalogue

import (
	"fmt"
	"io/fs"
	"syscall"
)

// identity tells a file from another one that was put in its place.
func identity(info fs.FileInfo) string {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("inode %d on %d", stat.Ino, stat.Dev)
	}
	return ""
}
