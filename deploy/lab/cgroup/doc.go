//go:build linux

// Package cgroup confines processes to a share of the CPU and an amount of memory.
//
// It owns the directories that it makes in the kernel's cgroup file systems, version 1 or 2 or a mixture, whichever the machine has. The lab calls it.
// Its invariants: a process is in its group before its program begins, so nothing that it does escapes the limits; and only directories
// that the caller named are ever removed, with every process in them. It refuses limits that the machine has no controller for.
package cgroup
