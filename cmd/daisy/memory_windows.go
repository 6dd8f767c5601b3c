package main

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

func availableMemory() int64 {
	// MEMORYSTATUSEX of the Windows API.
	var status struct {
		length, load                                                       uint32
		totalPhysical, availablePhysical, totalPageFile, availablePageFile uint64
		totalVirtual, availableVirtual, availableExtendedVirtual           uint64
	}
	status.length = uint32(unsafe.Sizeof(status))
	call := windows.NewLazySystemDLL("kernel32.dll").NewProc("GlobalMemoryStatusEx")
	if ok, _, _ := call.Call(uintptr(unsafe.Pointer(&status))); ok == 0 {
		return 0
	}
	return int64(status.availablePhysical)
}
