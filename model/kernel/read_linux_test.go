package kernel

import "testing"

// What is asked for ahead lies beyond the memory at its end, and must not be touched there.
func TestReadersStayWithinTheirMemory(t *testing.T) {
	fences(t, func(t *testing.T, fenced func(*testing.T) fence) {
		everyReader(t, func(t *testing.T, r Reader) {
			for _, n := range readSizes() {
				memory := fenced(t).bytes(n)
				pattern(memory)
				if got, want := r.Sum(memory), wordSum(memory); got != want {
					t.Errorf("%d bytes: %#x, not %#x", n, got, want)
				}
			}
		})
	})
}
