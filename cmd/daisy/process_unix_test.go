//go:build unix && !linux

package main

import "syscall"

const childAttributesKill = false

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }
