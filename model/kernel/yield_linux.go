package kernel

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// coreSet is a set of cores.
type coreSet struct{ unix.CPUSet }

func (s *coreSet) add(core int) { s.Set(core) }

// yield lets the operating system run another thread on this core. The thread keeps its place in the Go runtime: it is
// away for a time slice at most, as it would be if it were pushed aside.
func yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// currentCore is the core that the caller runs on; -1: unknown.
func currentCore() int {
	var core uint32
	if _, _, e := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&core)), 0, 0); e != 0 {
		return -1
	}
	return int(core)
}

// leave moves the caller to a core that it may use and that is not in the set, if there is one. It may be moved on from
// there at any time.
func leave(cores *coreSet) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var allowed unix.CPUSet
	if unix.SchedGetaffinity(0, &allowed) != nil {
		return
	}
	others, any := allowed, false
	for i := range others {
		others[i] &^= cores.CPUSet[i]
		any = any || others[i] != 0
	}
	if any && unix.SchedSetaffinity(0, &others) == nil {
		_ = unix.SchedSetaffinity(0, &allowed)
	}
}
