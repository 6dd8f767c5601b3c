//go:build !purego

package kernel

import "syscall"

// mayUseTiles asks the operating system to let this process use the tiles of AMX, which it must for the first time: their
// eight kibibytes belong to a thread's state only where a process wants them. Threads that exist have them too; asking again
// changes nothing. A kernel or a machine that knows no tiles refuses.
func mayUseTiles() bool {
	const (
		requestComponent = 0x1023 // ARCH_REQ_XCOMP_PERM of arch_prctl(2)
		tileData         = 18     // XFEATURE_XTILE_DATA
	)
	_, _, errno := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, requestComponent, tileData, 0)
	return errno == 0
}
