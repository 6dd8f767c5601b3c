//go:build !linux

package cluster

func memoryLimit() (int64, error) { return 0, errUnknownMemory }
func memoryRoom() (int64, error)  { return 0, errUnknownMemory }
