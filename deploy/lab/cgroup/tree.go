//go:build linux

package cgroup

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// controllers are what a group is made of, as far as the machine has them.
var controllers = [...]string{"cpu", "cpuacct", "memory"}

// Tree is where this machine keeps its groups.
type Tree struct {
	v1      map[string]string // controller -> where its hierarchy is mounted
	v2      string            // where version 2 is mounted, or nothing
	unified []string          // the controllers that version 2 has
	own     map[string]string // hierarchy of version 1 -> the directory that this process is in
}

// Find looks at what the kernel has mounted.
func Find() (*Tree, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	membership, err := os.ReadFile("/proc/thread-self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	t := parse(mounts, membership)
	if t.v2 != "" {
		raw, err := os.ReadFile(filepath.Join(t.v2, "cgroup.controllers"))
		if err != nil {
			return nil, fmt.Errorf("find cgroups: %w", err)
		}
		t.unified = strings.Fields(string(raw))
	}
	if len(t.hierarchies()) == 0 {
		return nil, fmt.Errorf("this machine has no cgroups mounted: mount -t cgroup2 none /sys/fs/cgroup, or the like")
	}
	return t, nil
}

// parse reads /proc/PID/mountinfo and /proc/PID/cgroup.
func parse(mounts, membership []byte) *Tree {
	t := &Tree{v1: map[string]string{}, own: map[string]string{}}
	paths := map[string]string{} // controller -> path of this process within the hierarchy
	for line := range lines(membership) {
		if fields := strings.SplitN(line, ":", 3); len(fields) == 3 {
			for name := range strings.SplitSeq(fields[1], ",") {
				paths[name] = fields[2]
			}
		}
	}
	for line := range lines(mounts) {
		// 35 24 0:30 ROOT MOUNTPOINT rw,relatime shared:9 - TYPE SOURCE OPTIONS
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		root, at := left[3], left[4]
		switch right[0] {
		case "cgroup2":
			t.v2 = at
		case "cgroup":
			for _, option := range strings.Split(right[2], ",") {
				if !slices.Contains(controllers[:], option) || t.v1[option] != "" {
					continue
				}
				t.v1[option] = at
				t.own[at] = at
				if path, err := filepath.Rel(root, paths[option]); err == nil && filepath.IsLocal(path) {
					t.own[at] = filepath.Join(at, path)
				}
			}
		}
	}
	return t
}

func lines(text []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for scanner := bufio.NewScanner(bytes.NewReader(text)); scanner.Scan(); {
			if !yield(scanner.Text()) {
				return
			}
		}
	}
}

// where is the hierarchy that has a controller, or nothing.
func (t *Tree) where(controller string) string {
	if at := t.v1[controller]; at != "" {
		return at
	}
	if slices.Contains(t.unified, controller) {
		return t.v2
	}
	return ""
}

// hierarchies are all that a group needs a directory in.
func (t *Tree) hierarchies() (all []string) {
	for _, controller := range controllers {
		if at := t.where(controller); at != "" && !slices.Contains(all, at) {
			all = append(all, at)
		}
	}
	if t.v2 != "" && !slices.Contains(all, t.v2) && len(all) == 0 {
		all = append(all, t.v2) // limits nothing, but knows who is in it
	}
	return all
}

// Dirs are the directories that groups below a name are made in: what Remove is to remove, whatever happens to this process.
func (t *Tree) Dirs(name string) (dirs []string) {
	for _, at := range t.hierarchies() {
		dirs = append(dirs, filepath.Join(at, name))
	}
	return dirs
}
