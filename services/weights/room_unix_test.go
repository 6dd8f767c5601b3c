//go:build unix

package weights

import (
	"syscall"
	"testing"
)

// room is how many bytes of the disk a file takes.
func room(t *testing.T, path string) int64 {
	t.Helper()
	var stat syscall.Stat_t
	if err := syscall.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Blocks * 512
}
