package main

import "syscall"

// Without a signal at the parent's death, the lifeline alone ends a child.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
