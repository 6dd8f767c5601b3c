//go:build !amd64 || purego

package kernel

func (r Reader) read(memory []byte, stride, n int) uint64 {
	return readReference(memory, r.streams, stride, n)
}
