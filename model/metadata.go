package model

import (
	"fmt"

	"github.com/daisy-llm/daisy/model/gguf"
)

// required, as the value that a missing key stands for, makes its absence an error.
const required = -1 << 40

// metadata reads the keys of one architecture and keeps the first error, so that a Config reads as a list.
type metadata struct {
	file *gguf.File
	arch string
	err  error
}

func (m *metadata) key(name string) string { return m.arch + "." + name }

func (m *metadata) fail(format string, args ...any) {
	if m.err == nil {
		m.err = fmt.Errorf(format, args...)
	}
}

// integer reads a key within bounds; a missing one is absent. A key that may differ from layer to layer is an array in
// some files: it must not differ.
func (m *metadata) integer(name string, absent, low, high int) int {
	key := m.key(name)
	if !m.file.Has(key) {
		if absent == required {
			m.fail("the key %s is missing", key)
		}
		return absent
	}
	v, ok := m.file.Int(key)
	if list, isList := m.file.Ints(key); isList && len(list) > 0 {
		v, ok = list[0], true
		for layer, other := range list {
			if other != v {
				m.fail("%s differs from layer to layer (%d in layer 0, %d in layer %d), which is not supported", key, v, other, layer)
			}
		}
	}
	if !ok {
		m.fail("the key %s must be an integer, but is %s", key, m.file.Kind(key))
		return low
	}
	if v < int64(low) || v > int64(high) {
		m.fail("%s is %d: it must be between %d and %d", key, v, low, high)
		return low
	}
	return int(v)
}

// number reads a key within bounds; a missing one is absent.
func (m *metadata) number(name string, absent, low, high float64) float64 {
	key := m.key(name)
	if !m.file.Has(key) {
		if absent == required {
			m.fail("the key %s is missing", key)
		}
		return absent
	}
	v, ok := m.file.Float(key)
	if !ok {
		m.fail("the key %s must be a number, but is %s", key, m.file.Kind(key))
		return low
	}
	if !(v >= low && v <= high) { // true for NaN
		m.fail("%s is %v: it must be between %v and %v", key, v, low, high)
		return low
	}
	return v
}

// scale reads a multiplier; a missing one, or 0, stands for 1.
func (m *metadata) scale(name string) float32 {
	if v := float32(m.number(name, 1, 0, 1e6)); v != 0 {
		return v
	}
	return 1
}
