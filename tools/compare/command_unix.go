//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// endAsGroup gives the command a process group of its own: a terminal's Ctrl-C then meets compare alone, which ends the command
// and all that it started.
func endAsGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
