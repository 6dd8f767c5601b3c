package cluster

import (
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/windows"
)

// memoryStatus is the MEMORYSTATUSEX of the Windows API.
type memoryStatus struct {
	length, load                           uint32
	totalPhysical, availablePhysical       uint64
	totalPageFile, availablePageFile       uint64
	totalVirtual, availableVirtual, extend uint64
}

func availableMemory() (int64, error) {
	status := memoryStatus{length: uint32(unsafe.Sizeof(memoryStatus{}))}
	call := windows.NewLazySystemDLL("kernel32.dll").NewProc("GlobalMemoryStatusEx")
	if ok, _, err := call.Call(uintptr(unsafe.Pointer(&status))); ok == 0 {
		return 0, fmt.Errorf("%w (%w)", errUnknownMemory, err)
	}
	return int64(min(status.availablePhysical, math.MaxInt64)), nil
}
