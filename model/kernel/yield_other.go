//go:build !linux

package kernel

// yield does nothing: on these systems a worker keeps its core until it is pushed aside.
func yield() {}

type coreSet struct{}

func (*coreSet) add(int) {}

func currentCore() int { return -1 }

func leave(*coreSet) {}
