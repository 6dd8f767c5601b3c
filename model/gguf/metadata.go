package gguf

import (
	"encoding/binary"
	"math"
)

// kind is the type of a metadata value, by the specification's number.
type kind uint32

const (
	kindUint8   kind = 0
	kindInt8    kind = 1
	kindUint16  kind = 2
	kindInt16   kind = 3
	kindUint32  kind = 4
	kindInt32   kind = 5
	kindFloat32 kind = 6
	kindBool    kind = 7
	kindString  kind = 8
	kindArray   kind = 9
	kindUint64  kind = 10
	kindInt64   kind = 11
	kindFloat64 kind = 12
)

// layout gives a kind's name and the bytes of one value: 0 for strings and arrays, which say their own size, -1 for a
// kind that does not exist.
func (k kind) layout() (name string, size int) {
	switch k {
	case kindUint8:
		return "uint8", 1
	case kindInt8:
		return "int8", 1
	case kindUint16:
		return "uint16", 2
	case kindInt16:
		return "int16", 2
	case kindUint32:
		return "uint32", 4
	case kindInt32:
		return "int32", 4
	case kindFloat32:
		return "float32", 4
	case kindBool:
		return "bool", 1
	case kindString:
		return "string", 0
	case kindArray:
		return "array", 0
	case kindUint64:
		return "uint64", 8
	case kindInt64:
		return "int64", 8
	case kindFloat64:
		return "float64", 8
	}
	return "", -1
}

// value is one metadata value, still in the file's bytes. Arrays are decoded when asked for: a vocabulary is large and
// most readers of a file do not want it.
type value struct {
	kind  kind // of the elements, for an array
	array bool
	count int    // 1 unless an array
	data  []byte // all elements, strings with their lengths
}

// integer decodes b; negative numbers come as their two's complement with negative set.
func (k kind) integer(b []byte) (v uint64, negative, ok bool) {
	var s int64
	switch k {
	case kindUint8:
		return uint64(b[0]), false, true
	case kindUint16:
		return uint64(binary.LittleEndian.Uint16(b)), false, true
	case kindUint32:
		return uint64(binary.LittleEndian.Uint32(b)), false, true
	case kindUint64:
		return binary.LittleEndian.Uint64(b), false, true
	case kindInt8:
		s = int64(int8(b[0]))
	case kindInt16:
		s = int64(int16(binary.LittleEndian.Uint16(b)))
	case kindInt32:
		s = int64(int32(binary.LittleEndian.Uint32(b)))
	case kindInt64:
		s = int64(binary.LittleEndian.Uint64(b))
	default:
		return 0, false, false
	}
	return uint64(s), s < 0, true
}

// signed is integer for those who want an int64; a larger uint64 is not ok.
func (k kind) signed(b []byte) (int64, bool) {
	v, negative, ok := k.integer(b)
	return int64(v), ok && (negative || v <= math.MaxInt64)
}

// Has says whether the file has the key, whatever its type.
func (f *File) Has(key string) bool {
	_, ok := f.values[key]
	return ok
}

// Kind names the type of a key's value, for messages: "uint32", "[]string", or "" if the key is missing.
func (f *File) Kind(key string) string {
	v, ok := f.values[key]
	if !ok {
		return ""
	}
	name, _ := v.kind.layout()
	if v.array {
		return "[]" + name
	}
	return name
}

func (f *File) scalar(key string) (value, bool) {
	v, ok := f.values[key]
	return v, ok && !v.array
}

// list finds an array; size is the bytes of an element.
func (f *File) list(key string) (v value, size int, ok bool) {
	v, ok = f.values[key]
	_, size = v.kind.layout()
	return v, size, ok && v.array
}

// Uint gives an integer of any width that is not negative. It is not ok if the key is missing or of another type, as for
// all these getters.
func (f *File) Uint(key string) (uint64, bool) {
	v, ok := f.scalar(key)
	if !ok {
		return 0, false
	}
	n, negative, ok := v.kind.integer(v.data)
	if !ok || negative {
		return 0, false
	}
	return n, true
}

// Int gives an integer of any width.
func (f *File) Int(key string) (int64, bool) {
	v, ok := f.scalar(key)
	if !ok {
		return 0, false
	}
	n, ok := v.kind.signed(v.data)
	if !ok {
		return 0, false
	}
	return n, true
}

// Float gives a float32, a float64, or an integer of any width.
func (f *File) Float(key string) (float64, bool) {
	v, ok := f.scalar(key)
	if !ok {
		return 0, false
	}
	switch v.kind {
	case kindFloat32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(v.data))), true
	case kindFloat64:
		return math.Float64frombits(binary.LittleEndian.Uint64(v.data)), true
	}
	n, negative, ok := v.kind.integer(v.data)
	switch {
	case !ok:
		return 0, false
	case negative:
		return float64(int64(n)), true
	}
	return float64(n), true
}

// Bool gives a boolean.
func (f *File) Bool(key string) (value, ok bool) {
	v, ok := f.scalar(key)
	if !ok || v.kind != kindBool {
		return false, false
	}
	return v.data[0] == 1, true
}

// String gives a string, its bytes as they are in the file: nothing promises that they are UTF-8.
func (f *File) String(key string) (string, bool) {
	v, ok := f.scalar(key)
	if !ok || v.kind != kindString {
		return "", false
	}
	return string(v.data[8:]), true
}

// Strings decodes an array of strings anew at each call. They share one copy of the array's bytes and stay valid after
// Close.
func (f *File) Strings(key string) ([]string, bool) {
	v, _, ok := f.list(key)
	if !ok || v.kind != kindString {
		return nil, false
	}
	all := string(v.data)
	list := make([]string, v.count)
	for i, at := 0, 0; i < v.count; i++ {
		start := at + 8
		at = start + int(binary.LittleEndian.Uint64(v.data[at:]))
		list[i] = all[start:at]
	}
	return list, true
}

// Ints decodes an array of integers of any width that fit an int64.
func (f *File) Ints(key string) ([]int64, bool) {
	v, size, ok := f.list(key)
	if !ok {
		return nil, false
	}
	switch v.kind {
	case kindString, kindBool, kindFloat32, kindFloat64:
		return nil, false
	}
	list := make([]int64, v.count)
	for i := range list {
		if list[i], ok = v.kind.signed(v.data[i*size:]); !ok {
			return nil, false
		}
	}
	return list, true
}

// Floats decodes an array of float32 or float64; the latter are rounded.
func (f *File) Floats(key string) ([]float32, bool) {
	v, size, ok := f.list(key)
	if !ok || v.kind != kindFloat32 && v.kind != kindFloat64 {
		return nil, false
	}
	list := make([]float32, v.count)
	for i := range list {
		if v.kind == kindFloat32 {
			list[i] = math.Float32frombits(binary.LittleEndian.Uint32(v.data[i*size:]))
		} else {
			list[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(v.data[i*size:])))
		}
	}
	return list, true
}

// Bools decodes an array of booleans.
func (f *File) Bools(key string) ([]bool, bool) {
	v, _, ok := f.list(key)
	if !ok || v.kind != kindBool {
		return nil, false
	}
	list := make([]bool, v.count)
	for i := range list {
		list[i] = v.data[i] == 1
	}
	return list, true
}
