package offheap

import (
	"strings"
	"testing"
	"unsafe"
)

func TestAlloc(t *testing.T) {
	for _, size := range []int{1, 63, 4096, 1<<20 + 1, 8 << 20} {
		memory, err := Alloc(size)
		if err != nil {
			t.Fatal(err)
		}
		if len(memory) != size || cap(memory) < size {
			t.Errorf("asked for %d bytes, got %d", size, len(memory))
		}
		if uintptr(unsafe.Pointer(&memory[0]))%64 != 0 {
			t.Errorf("%d bytes are not aligned", size)
		}
		for i, b := range memory {
			if b != 0 {
				t.Fatalf("byte %d of %d is %d", i, size, b)
			}
		}
		memory[0], memory[size-1] = 1, 2
		if err := Free(memory); err != nil {
			t.Error(err)
		}
	}
}

func TestAllocRefuses(t *testing.T) {
	for _, size := range []int{0, -1} {
		if _, err := Alloc(size); err == nil || !strings.Contains(err.Error(), "1 or more") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if err := Free(nil); err != nil {
		t.Error(err)
	}
}
