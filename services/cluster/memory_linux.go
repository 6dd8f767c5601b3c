package cluster

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

func availableMemory() (int64, error) { return availableIn(os.DirFS("/")) }

// availableIn is the smaller of what the machine has available and what the control groups of this process leave it.
func availableIn(root fs.FS) (int64, error) {
	info, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("%w (%w)", errUnknownMemory, err)
	}
	kib, ok := field(string(info), "MemAvailable:")
	if !ok || kib > math.MaxInt64/1024 {
		return 0, errUnknownMemory
	}
	return min(kib*1024, leftInGroups(root)), nil
}

// A hierarchy is a version of control groups, as memory is accounted there.
type hierarchy struct {
	mount, limit, usage string
	file                string // in memory.stat: the page cache, which is given back under pressure
}

var (
	unified = hierarchy{"sys/fs/cgroup", "memory.max", "memory.current", "file"}
	legacy  = hierarchy{"sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"}
)

// leftInGroups is what this process's groups, and all above them, leave it; without a limit it is the largest number.
func leftInGroups(root fs.FS) int64 {
	left := int64(math.MaxInt64)
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return left
	}
	for line := range strings.Lines(string(groups)) {
		// hierarchy-ID:controllers:path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		h := unified
		if parts[1] != "" {
			if !strings.Contains(","+parts[1]+",", ",memory,") {
				continue
			}
			h = legacy
		}
		// In a container the path may name a group as the host sees it; the mount then shows our own at its root.
		for group := path.Clean("/" + parts[2]); ; group = path.Dir(group) {
			left = min(left, h.left(root, path.Join(h.mount, group)))
			if group == "/" {
				break
			}
		}
	}
	return left
}

// left is a group's limit less what it uses and cannot give back.
func (h hierarchy) left(root fs.FS, group string) int64 {
	limit, ok := number(root, path.Join(group, h.limit))
	if !ok { // no such group, or "max"
		return math.MaxInt64
	}
	used, _ := number(root, path.Join(group, h.usage))
	stat, _ := fs.ReadFile(root, path.Join(group, "memory.stat"))
	cache, _ := field(string(stat), h.file)
	return max(0, limit-max(0, used-cache))
}

func number(root fs.FS, name string) (int64, bool) {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil && n >= 0
}

// field finds the number behind a name that begins a line.
func field(text, name string) (int64, bool) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) >= 2 && words[0] == name {
			n, err := strconv.ParseInt(words[1], 10, 64)
			return n, err == nil && n >= 0
		}
	}
	return 0, false
}
