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
func memoryLimit() (int64, error)     { return limitIn(os.DirFS("/")) }
func memoryRoom() (int64, error)      { return roomIn(os.DirFS("/")) }

// availableIn is the smaller of what the machine has available and what the control groups of this process leave it.
func availableIn(root fs.FS) (int64, error) {
	available, err := meminfo(root, "MemAvailable:")
	return min(available, inGroups(root, hierarchy.left)), err
}

// limitIn is the smaller of what the machine has and what the control groups of this process allow.
func limitIn(root fs.FS) (int64, error) {
	total, err := meminfo(root, "MemTotal:")
	return min(total, inGroups(root, hierarchy.most)), err
}

// roomIn is what is available besides the memory that this process has and shares with no file.
func roomIn(root fs.FS) (int64, error) {
	available, err := availableIn(root)
	if err != nil {
		return 0, err
	}
	text, err := fs.ReadFile(root, "proc/self/statm")
	if err != nil {
		return 0, fmt.Errorf("%w (%w)", errUnknownMemory, err)
	}
	var size, resident, shared int64 // pages
	if _, err := fmt.Sscan(string(text), &size, &resident, &shared); err != nil || shared < 0 || resident < shared || resident > math.MaxInt64/2/int64(os.Getpagesize()) {
		return 0, errUnknownMemory
	}
	own := (resident - shared) * int64(os.Getpagesize())
	return min(available, math.MaxInt64-own) + own, nil
}

// meminfo is a line of the kernel's about the machine's memory, in bytes.
func meminfo(root fs.FS, name string) (int64, error) {
	info, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("%w (%w)", errUnknownMemory, err)
	}
	kib, ok := field(string(info), name)
	if !ok || kib > math.MaxInt64/1024 {
		return 0, errUnknownMemory
	}
	return kib * 1024, nil
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

// inGroups is the least of what a measure says of this process's groups and of all above them; without a limit it is the largest number.
func inGroups(root fs.FS, measure func(hierarchy, fs.FS, string) int64) int64 {
	least := int64(math.MaxInt64)
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return least
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
			least = min(least, measure(h, root, path.Join(h.mount, group)))
			if group == "/" {
				break
			}
		}
	}
	return least
}

// most is a group's limit.
func (h hierarchy) most(root fs.FS, group string) int64 {
	limit, ok := number(root, path.Join(group, h.limit))
	if !ok { // no such group, or "max"
		return math.MaxInt64
	}
	return limit
}

// left is a group's limit less what it uses and cannot give back.
func (h hierarchy) left(root fs.FS, group string) int64 {
	limit := h.most(root, group)
	if limit == math.MaxInt64 {
		return limit
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
