//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Group is a set of processes that share their limits.
type Group struct {
	dirs    []string // one per hierarchy
	unified string   // the one of version 2, or nothing
	memory  string   // the directories of the controllers, or nothing
	cpu     string
	cpuacct string
	back    []string // of version 1, in dirs' order: where a thread of this process came from
}

// Make makes a group: parent/name, in a parent that all groups of one owner share.
func (t *Tree) Make(parent, name string, limits Limits) (*Group, error) {
	if err := limits.Validate(); err != nil {
		return nil, err
	}
	g := &Group{}
	for _, at := range t.hierarchies() {
		above := filepath.Join(at, parent)
		if err := os.Mkdir(above, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make a cgroup: %w", err)
		}
		if at == t.v2 {
			for _, controller := range []string{"cpu", "memory"} {
				if slices.Contains(t.unified, controller) {
					if err := write(filepath.Join(above, "cgroup.subtree_control"), "+"+controller); err != nil {
						return nil, fmt.Errorf("%w: the machine's root group must hand the controller down: echo +%s > %s", err, controller, filepath.Join(at, "cgroup.subtree_control"))
					}
				}
			}
		}
		dir := filepath.Join(above, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make a cgroup: %w", err)
		}
		g.dirs = append(g.dirs, dir)
		g.back = append(g.back, t.own[at])
		if at == t.v2 {
			g.unified = dir
		}
	}
	in := func(controller string) string {
		if at := t.where(controller); at != "" {
			return filepath.Join(at, parent, name)
		}
		return ""
	}
	g.memory, g.cpu, g.cpuacct = in("memory"), in("cpu"), in("cpuacct")
	if err := limits.setMemory(g.memory, g.memory == g.unified); err != nil {
		return nil, err
	}
	if err := limits.setCPU(g.cpu, g.cpu == g.unified); err != nil {
		return nil, err
	}
	return g, nil
}

// Members are the files that a process writes its id into to join the group.
func (g *Group) Members() (files []string) {
	for _, dir := range g.dirs {
		files = append(files, filepath.Join(dir, "cgroup.procs"))
	}
	return files
}

// Start calls start on a thread that is in the group, so that the process which it starts with these attributes is in it from its
// first instruction. The caller has locked itself to its thread.
func (g *Group) Start(attributes *syscall.SysProcAttr, start func() error) (err error) {
	thread := strconv.Itoa(unix.Gettid())
	for i, dir := range g.dirs {
		if dir == g.unified {
			// A group of version 2 takes no single threads, but version 2 starts processes where it is told to.
			opened, err := os.Open(dir)
			if err != nil {
				return fmt.Errorf("enter cgroup: %w", err)
			}
			defer opened.Close()
			attributes.UseCgroupFD, attributes.CgroupFD = true, int(opened.Fd())
			continue
		}
		if err := write(filepath.Join(dir, "tasks"), thread); err != nil {
			return fmt.Errorf("enter cgroup: %w", err)
		}
		defer func() {
			if back := write(filepath.Join(g.back[i], "tasks"), thread); back != nil {
				err = errors.Join(err, fmt.Errorf("leave cgroup: %w", back))
			}
		}()
	}
	return start()
}

// Processes are those in the group, without this one, a thread of which may be passing through.
func (g *Group) Processes() ([]int, error) { return processes(g.dirs[0]) }

func processes(dir string) (pids []int, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	for line := range lines(raw) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			return nil, fmt.Errorf("%s/cgroup.procs says %q", dir, line)
		}
		if pid > 0 && pid != os.Getpid() { // 0 is a process of another namespace
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Signal sends a signal to every process in the group.
func (g *Group) Signal(signal syscall.Signal) error { return signalAll(g.dirs[0], signal) }

// signalAll never strikes a process that has taken over the number of one that was in the group: it holds the process first, and then asks
// again whether it is there.
func signalAll(dir string, signal syscall.Signal) error {
	before, err := processes(dir)
	if err != nil {
		return err
	}
	var held []int // pidfds
	for _, pid := range before {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			fd = -1 // gone already
		} else {
			defer unix.Close(fd)
		}
		held = append(held, fd)
	}
	now, err := processes(dir)
	if err != nil {
		return err
	}
	for i, pid := range before {
		if held[i] < 0 || !slices.Contains(now, pid) {
			continue
		}
		if err := unix.PidfdSendSignal(held[i], signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}

// Usage is what a group uses, and has used.
type Usage struct {
	Memory    int64         `json:"memory"`    // bytes, the file cache included
	Cache     int64         `json:"cache"`     // bytes of files: the kernel takes them back when memory runs short
	Peak      int64         `json:"peak"`      // the most bytes so far
	Kills     int64         `json:"kills"`     // processes that the kernel killed because memory ran out
	CPU       time.Duration `json:"cpu"`       // of all cores
	Throttled time.Duration `json:"throttled"` // runnable, but out of its share
}

// Usage reads what this machine counts; what it does not count stays zero.
func (g *Group) Usage() (u Usage, err error) {
	read := func(into *int64, dir, file, key string, unit int64) {
		if dir == "" || err != nil {
			return
		}
		var n int64
		if n, err = number(filepath.Join(dir, file), key); err == nil {
			*into = n * unit
		}
	}
	var cpu, throttled int64
	if g.memory == g.unified {
		read(&u.Memory, g.memory, "memory.current", "", 1)
		read(&u.Cache, g.memory, "memory.stat", "file", 1)
		read(&u.Kills, g.memory, "memory.events", "oom_kill", 1)
		if peak, err := number(filepath.Join(g.memory, "memory.peak"), ""); err == nil { // since Linux 5.19
			u.Peak = peak
		}
	} else {
		read(&u.Memory, g.memory, "memory.usage_in_bytes", "", 1)
		read(&u.Cache, g.memory, "memory.stat", "total_cache", 1)
		read(&u.Kills, g.memory, "memory.oom_control", "oom_kill", 1)
		read(&u.Peak, g.memory, "memory.max_usage_in_bytes", "", 1)
	}
	if g.cpu == g.unified {
		read(&cpu, g.cpu, "cpu.stat", "usage_usec", 1000)
		read(&throttled, g.cpu, "cpu.stat", "throttled_usec", 1000)
	} else {
		read(&cpu, g.cpuacct, "cpuacct.usage", "", 1)
		read(&throttled, g.cpu, "cpu.stat", "throttled_time", 1)
	}
	u.CPU, u.Throttled = time.Duration(cpu), time.Duration(throttled)
	return u, err
}

// patience is how long killed processes may take to go: a large one frees its memory first.
const patience = 20 * time.Second

// Remove kills every process in these directories and below, and removes them. Those that are not there are no error.
func Remove(dirs []string) error {
	var failed []error
	for _, dir := range dirs {
		failed = append(failed, remove(dir))
	}
	return errors.Join(failed...)
}

func remove(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := remove(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := signalAll(dir, syscall.SIGKILL)
		if err == nil {
			err = syscall.Rmdir(dir)
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			left, _ := processes(dir)
			return fmt.Errorf("remove cgroup %s: %w, with processes %v in it", dir, err, strings.Trim(fmt.Sprint(left), "[]"))
		}
	}
}
