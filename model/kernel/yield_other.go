//go:build !linux

package kernel

// yieldProcessor has nothing to offer here beyond runtime.Gosched.
func yieldProcessor() {}
