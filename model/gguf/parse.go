package gguf

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

const (
	magic            = "GGUF"
	headerBytes      = 24
	keyAlignment     = "general.alignment"
	defaultAlignment = 32

	// Limits of the specification and of ggml, or far above what any model has: with them, no header makes us allocate
	// more than some tens of megabytes beyond a small multiple of its own size.
	maxAlignment = 1 << 20
	maxDims      = 4
	maxNameBytes = 1<<16 - 1
	maxKeys      = 1 << 16
	maxTensors   = 1 << 18

	// The fewest bytes that one key, one tensor, one string can take: they bound the counts that a file may claim.
	minKeyBytes    = 8 + 1 + 4 + 1
	minTensorBytes = 8 + 1 + 4 + 8 + 4 + 8
	minStringBytes = 8
)

// Parse reads a file that is already in memory. The File refers to data, which must not change while it is in use.
func Parse(data []byte) (*File, error) {
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		return nil, errors.New("not a GGUF file: it does not start with the bytes GGUF")
	}
	if len(data) < headerBytes {
		return nil, fmt.Errorf("the file is cut off: %d bytes, less than a header", len(data))
	}
	version := binary.LittleEndian.Uint32(data[4:])
	switch {
	case version == 2 || version == 3:
	case version == 1:
		return nil, errors.New("GGUF version 1 is not supported: convert the model again, to version 3")
	case version&0xffff == 0 && version != 0:
		return nil, errors.New("the GGUF file is big-endian, which is not supported: convert the model for little-endian machines")
	default:
		return nil, fmt.Errorf("GGUF version %d is not supported: only 2 and 3 are", version)
	}
	f := &File{Version: version, Size: int64(len(data)), data: data}
	c := &cursor{data: data, at: headerBytes}
	if err := f.parseMetadata(c, binary.LittleEndian.Uint64(data[16:])); err != nil {
		return nil, err
	}
	if err := f.parseTensors(c, binary.LittleEndian.Uint64(data[8:])); err != nil {
		return nil, err
	}
	return f, nil
}

// cursor walks over bytes that it does not trust.
type cursor struct {
	data []byte
	at   int
}

func (c *cursor) left() uint64 { return uint64(len(c.data) - c.at) }

func (c *cursor) take(n uint64) ([]byte, error) {
	if n > c.left() {
		return nil, fmt.Errorf("needs %d bytes at offset %d, but the file ends after %d", n, c.at, c.left())
	}
	b := c.data[c.at : c.at+int(n)]
	c.at += int(n)
	return b, nil
}

func (c *cursor) uint32() (uint32, error) {
	b, err := c.take(4)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

func (c *cursor) uint64() (uint64, error) {
	b, err := c.take(8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// name reads the name of a key or tensor.
func (c *cursor) name() (string, error) {
	n, err := c.uint64()
	if err != nil {
		return "", err
	}
	switch {
	case n == 0:
		return "", errors.New("its name is empty")
	case n > maxNameBytes:
		return "", fmt.Errorf("its name has %d bytes, more than %d", n, maxNameBytes)
	}
	b, err := c.take(n)
	return string(b), err
}

// quoted bounds what a hostile name may put into a message.
func quoted(name string) string { return fmt.Sprintf("%.100q", name) }

func (f *File) parseMetadata(c *cursor, count uint64) error {
	if count > maxKeys || count > c.left()/minKeyBytes {
		return fmt.Errorf("the file claims %d metadata keys, more than it can hold or any model needs", count)
	}
	f.keys = make([]string, 0, count)
	f.values = make(map[string]value, count)
	for i := range count {
		key, err := c.name()
		if err != nil {
			return fmt.Errorf("metadata key number %d: %w", i, err)
		}
		if f.Has(key) {
			return fmt.Errorf("metadata key %s: it appears twice", quoted(key))
		}
		v, err := c.value()
		if err != nil {
			return fmt.Errorf("metadata key %s: %w", quoted(key), err)
		}
		f.keys = append(f.keys, key)
		f.values[key] = v
	}
	f.Alignment = defaultAlignment
	if f.Has(keyAlignment) {
		a, ok := f.Uint(keyAlignment)
		if !ok || a < 8 || a > maxAlignment || bits.OnesCount64(a) != 1 {
			return fmt.Errorf("metadata key %q: it must be a power of two from 8 to %d", keyAlignment, maxAlignment)
		}
		f.Alignment = int(a)
	}
	return nil
}

func (c *cursor) value() (value, error) {
	k, err := c.uint32()
	if err != nil {
		return value{}, err
	}
	if kind(k) != kindArray {
		return c.elements(kind(k), 1)
	}
	if k, err = c.uint32(); err != nil {
		return value{}, err
	}
	count, err := c.uint64()
	if err != nil {
		return value{}, err
	}
	v, err := c.elements(kind(k), count)
	v.array = true
	return v, err
}

// elements reads count values of one kind.
func (c *cursor) elements(k kind, count uint64) (value, error) {
	name, size := k.layout()
	least := uint64(max(size, 1))
	if k == kindString {
		least = minStringBytes
	}
	switch {
	case size < 0:
		return value{}, fmt.Errorf("unknown value type %d", k)
	case k == kindArray:
		return value{}, errors.New("an array of arrays is not supported")
	case count > c.left()/least:
		return value{}, fmt.Errorf("%d values of type %s are more than the file holds", count, name)
	case k == kindString:
		return c.strings(count)
	}
	data, err := c.take(count * uint64(size))
	if err != nil {
		return value{}, err
	}
	if k == kindBool {
		for _, b := range data {
			if b > 1 {
				return value{}, fmt.Errorf("a bool must be 0 or 1, not %d", b)
			}
		}
	}
	return value{kind: k, count: int(count), data: data}, nil
}

func (c *cursor) strings(count uint64) (value, error) {
	start := c.at
	for i := range count {
		n, err := c.uint64()
		if err != nil {
			return value{}, fmt.Errorf("string number %d: %w", i, err)
		}
		if _, err := c.take(n); err != nil {
			return value{}, fmt.Errorf("string number %d: %w", i, err)
		}
	}
	return value{kind: kindString, count: int(count), data: c.data[start:c.at]}, nil
}

func (f *File) parseTensors(c *cursor, count uint64) error {
	if count > maxTensors || count > c.left()/minTensorBytes {
		return fmt.Errorf("the file claims %d tensors, more than it can hold or any model needs", count)
	}
	f.tensors = make([]Tensor, 0, count)
	f.byName = make(map[string]int, count)
	sizes := make([]int, 0, count)
	for i := range count {
		name, err := c.name()
		if err != nil {
			return fmt.Errorf("tensor number %d: %w", i, err)
		}
		if _, ok := f.byName[name]; ok {
			return fmt.Errorf("tensor %s: it appears twice", quoted(name))
		}
		t, size, err := c.tensor()
		if err != nil {
			return fmt.Errorf("tensor %s: %w", quoted(name), err)
		}
		t.Name = name
		f.byName[name] = len(f.tensors)
		f.tensors = append(f.tensors, t)
		sizes = append(sizes, size)
	}
	if len(f.tensors) == 0 {
		return nil
	}
	alignment := uint64(f.Alignment)
	start := (uint64(c.at) + alignment - 1) &^ (alignment - 1)
	for i := range f.tensors {
		if err := f.place(&f.tensors[i], start, uint64(sizes[i])); err != nil {
			return fmt.Errorf("tensor %s: %w", quoted(f.tensors[i].Name), err)
		}
	}
	return f.checkOverlap()
}

// tensor reads what follows a tensor's name. Offset is still that from the start of the data; size is the bytes it needs.
func (c *cursor) tensor() (t Tensor, size int, err error) {
	dims, err := c.uint32()
	if err != nil {
		return Tensor{}, 0, err
	}
	if dims == 0 || dims > maxDims {
		return Tensor{}, 0, fmt.Errorf("it has %d dimensions, not 1 to %d", dims, maxDims)
	}
	t.Dims = make([]int, dims)
	for i := range t.Dims {
		d, err := c.uint64()
		if err != nil {
			return Tensor{}, 0, err
		}
		if d == 0 || d > math.MaxInt {
			return Tensor{}, 0, fmt.Errorf("dimension %d is %d", i, d)
		}
		t.Dims[i] = int(d)
	}
	number, err := c.uint32()
	if err != nil {
		return Tensor{}, 0, err
	}
	t.Type = Type(number)
	if size, err = t.bytes(); err != nil {
		return Tensor{}, 0, err
	}
	offset, err := c.uint64()
	if err != nil {
		return Tensor{}, 0, err
	}
	if offset > math.MaxInt64 {
		return Tensor{}, 0, fmt.Errorf("its data would begin at %d, beyond the end of the file", offset)
	}
	t.Offset = int64(offset)
	return t, size, nil
}

// bytes is the size of the data that the type and the dimensions call for.
func (t *Tensor) bytes() (int, error) {
	elements, bytes := t.Type.Block()
	if elements == 0 {
		return 0, fmt.Errorf("unknown tensor %v", t.Type)
	}
	if t.Cols()%elements != 0 {
		return 0, fmt.Errorf("rows of %d are no multiple of the %d elements in a block of %v", t.Cols(), elements, t.Type)
	}
	total := uint64(1)
	for i, d := range t.Dims {
		var high uint64
		if high, total = bits.Mul64(total, uint64(d)); high != 0 || total > math.MaxInt {
			return 0, fmt.Errorf("dimensions %v are too large", t.Dims[:i+1])
		}
	}
	high, size := bits.Mul64(total/uint64(elements), uint64(bytes))
	if high != 0 || size > math.MaxInt {
		return 0, fmt.Errorf("dimensions %v are too large", t.Dims)
	}
	return int(size), nil
}

// place checks where a tensor's data lies and sets Data and Offset; start is where the data of all tensors begins.
func (f *File) place(t *Tensor, start, size uint64) error {
	offset, end := uint64(t.Offset), uint64(len(f.data))
	if offset%uint64(f.Alignment) != 0 {
		return fmt.Errorf("its data at %d is not aligned to %d bytes", offset, f.Alignment)
	}
	if start > end || offset > end-start || size > end-start-offset {
		return fmt.Errorf("its data, %d bytes at %d, lies beyond the end of the file: the file may be cut off", size, start+offset)
	}
	from := start + offset
	t.Offset = int64(from)
	t.Data = f.data[from : from+size : from+size]
	return nil
}

func (f *File) checkOverlap() error {
	order := make([]*Tensor, len(f.tensors))
	for i := range f.tensors {
		order[i] = &f.tensors[i]
	}
	slices.SortFunc(order, func(a, b *Tensor) int { return cmp.Compare(a.Offset, b.Offset) })
	for i := 1; i < len(order); i++ {
		before, t := order[i-1], order[i]
		if before.Offset+int64(len(before.Data)) > t.Offset {
			return fmt.Errorf("tensor %s: its data overlaps that of tensor %s", quoted(t.Name), quoted(before.Name))
		}
	}
	return nil
}
