package main

import (
	"bytes"
	"fmt"
	"os"
)

// childAttributesKill: the kernel kills children even if they do not listen to their lifeline.
const childAttributesKill = true

// alive says whether a process runs. One that has ended and waits to be collected by whoever inherited it does not.
func alive(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := bytes.Cut(raw, []byte(") "))
	return ok && len(rest) > 0 && rest[0] != 'Z' && rest[0] != 'X'
}
