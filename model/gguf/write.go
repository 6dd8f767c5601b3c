package gguf

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"reflect"
)

// KeyValue is one entry of the metadata. Value is an integer of a sized type, a float, a bool, a string, or a slice of
// such.
type KeyValue struct {
	Key   string
	Value any
}

// Write makes a GGUF file, version 3: for models made from nothing, as benchmarks and tests need. Tensors are laid out in
// the given order, and their Offset is ignored. The key general.alignment, if given, must be a uint32.
func Write(w io.Writer, metadata []KeyValue, tensors []Tensor) error {
	return Stream(w, metadata, tensors, func(w io.Writer, t *Tensor) error {
		_, err := w.Write(t.Data)
		return err
	})
}

// Stream is Write for tensors that are larger than memory: their Data is ignored, and data writes it, called for one tensor
// after the other. It fails if data fails, or writes another number of bytes than the tensor needs.
func Stream(w io.Writer, metadata []KeyValue, tensors []Tensor, data func(w io.Writer, t *Tensor) error) error {
	alignment := uint32(defaultAlignment)
	header := binary.LittleEndian.AppendUint32([]byte(magic), 3)
	header = binary.LittleEndian.AppendUint64(header, uint64(len(tensors)))
	header = binary.LittleEndian.AppendUint64(header, uint64(len(metadata)))
	for _, kv := range metadata {
		var err error
		header = appendString(header, kv.Key)
		if header, err = appendValue(header, kv.Value); err != nil {
			return fmt.Errorf("write metadata key %q: %w", kv.Key, err)
		}
		if a, ok := kv.Value.(uint32); ok && kv.Key == keyAlignment {
			alignment = a
		}
	}
	if alignment == 0 {
		return fmt.Errorf("write metadata key %q: it is 0", keyAlignment)
	}
	offset := uint64(0)
	for i := range tensors {
		t := &tensors[i]
		if len(t.Dims) == 0 {
			return fmt.Errorf("write tensor %q: it has no dimensions", t.Name)
		}
		size, err := t.bytes()
		if err != nil {
			return fmt.Errorf("write tensor %q: %w", t.Name, err)
		}
		header = appendString(header, t.Name)
		header = binary.LittleEndian.AppendUint32(header, uint32(len(t.Dims)))
		for _, d := range t.Dims {
			header = binary.LittleEndian.AppendUint64(header, uint64(d))
		}
		header = binary.LittleEndian.AppendUint32(header, uint32(t.Type))
		header = binary.LittleEndian.AppendUint64(header, offset)
		offset += uint64(size + padding(size, alignment))
	}
	out := &countingWriter{to: bufio.NewWriterSize(w, 1<<16)}
	zeros := make([]byte, alignment)
	if _, err := out.Write(append(header, zeros[:padding(len(header), alignment)]...)); err != nil {
		return fmt.Errorf("write the header: %w", err)
	}
	for i := range tensors {
		t := &tensors[i]
		size, err := t.bytes()
		if err != nil {
			return fmt.Errorf("write tensor %q: %w", t.Name, err)
		}
		before := out.written
		if err := data(out, t); err != nil {
			return fmt.Errorf("write tensor %q: %w", t.Name, err)
		}
		if n := out.written - before; n != int64(size) {
			return fmt.Errorf("write tensor %q: %d bytes of data, but %v of %v need %d", t.Name, n, t.Dims, t.Type, size)
		}
		if _, err := out.Write(zeros[:padding(size, alignment)]); err != nil {
			return fmt.Errorf("write tensor %q: %w", t.Name, err)
		}
	}
	return out.to.Flush()
}

// countingWriter counts what went through.
type countingWriter struct {
	to      *bufio.Writer
	written int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.written += int64(n)
	return n, err
}

func padding(size int, alignment uint32) int {
	a := int(alignment)
	return (a - size%a) % a
}

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}

func appendValue(b []byte, v any) ([]byte, error) {
	list := reflect.ValueOf(v)
	if list.Kind() != reflect.Slice {
		k, err := kindOf(reflect.TypeOf(v))
		if err != nil {
			return nil, err
		}
		return appendElement(binary.LittleEndian.AppendUint32(b, uint32(k)), v)
	}
	k, err := kindOf(list.Type().Elem())
	if err != nil {
		return nil, err
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(kindArray))
	b = binary.LittleEndian.AppendUint32(b, uint32(k))
	b = binary.LittleEndian.AppendUint64(b, uint64(list.Len()))
	for i := range list.Len() {
		if b, err = appendElement(b, list.Index(i).Interface()); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func appendElement(b []byte, v any) ([]byte, error) {
	if s, ok := v.(string); ok {
		return appendString(b, s), nil
	}
	return binary.Append(b, binary.LittleEndian, v)
}

func kindOf(t reflect.Type) (kind, error) {
	if t != nil {
		switch t.Kind() {
		case reflect.Uint8:
			return kindUint8, nil
		case reflect.Int8:
			return kindInt8, nil
		case reflect.Uint16:
			return kindUint16, nil
		case reflect.Int16:
			return kindInt16, nil
		case reflect.Uint32:
			return kindUint32, nil
		case reflect.Int32:
			return kindInt32, nil
		case reflect.Float32:
			return kindFloat32, nil
		case reflect.Bool:
			return kindBool, nil
		case reflect.String:
			return kindString, nil
		case reflect.Uint64:
			return kindUint64, nil
		case reflect.Int64:
			return kindInt64, nil
		case reflect.Float64:
			return kindFloat64, nil
		}
	}
	return 0, fmt.Errorf("a value of type %v has no place in GGUF", t)
}
