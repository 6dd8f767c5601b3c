package kernel

import "syscall"

// yieldProcessor lets another thread run on this core.
func yieldProcessor() { syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }
