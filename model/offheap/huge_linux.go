package offheap

import "golang.org/x/sys/unix"

// adviseHuge asks for huge pages: weights are read in long streams, and each small page costs a lookup. It may be
// refused without harm.
func adviseHuge(memory []byte) { _ = unix.Madvise(memory, unix.MADV_HUGEPAGE) }
