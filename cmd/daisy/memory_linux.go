package main

import (
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

func availableMemory() int64 { return availableMemoryIn("/") }

// availableMemoryIn reads the proc and sys file systems below root; 0: they do not say.
func availableMemoryIn(root string) int64 {
	available := memAvailable(filepath.Join(root, "proc/meminfo"))
	for _, limit := range cgroupLimits(root) {
		if available == 0 || limit < available {
			available = limit
		}
	}
	return available
}

func memAvailable(meminfo string) int64 {
	raw, err := os.ReadFile(meminfo)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "MemAvailable:" && fields[2] == "kB" {
			n, _ := strconv.ParseInt(fields[1], 10, 53)
			return n << 10
		}
	}
	return 0
}

// cgroupLimits are the memory limits of this process's control group and of those above it, versions 1 and 2.
func cgroupLimits(root string) []int64 {
	raw, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil
	}
	var limits []int64
	for line := range strings.Lines(string(raw)) {
		// hierarchy:controllers:path; version 2 names no controllers.
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		mount, file := "sys/fs/cgroup", "memory.max"
		if fields[1] != "" {
			if !strings.Contains(","+fields[1]+",", ",memory,") {
				continue
			}
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		for group := path.Clean("/" + fields[2]); ; group = path.Dir(group) {
			// "max", or a file that is not there, sets no limit; version 1 writes a number beyond any memory.
			raw, err := os.ReadFile(filepath.Join(root, mount, filepath.FromSlash(group), file))
			if n, parseErr := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64); err == nil && parseErr == nil && n > 0 {
				limits = append(limits, n)
			}
			if group == "/" {
				break
			}
		}
	}
	return limits
}
