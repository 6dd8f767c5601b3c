package model

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
)

// fixture is a model file in pieces, to be changed and written anew.
type fixture struct {
	arch    string
	keys    []gguf.KeyValue
	tensors []gguf.Tensor
}

// fixtureOf takes a golden model apart; the tokenizer is left out.
func fixtureOf(t testing.TB, g *golden) *fixture {
	t.Helper()
	x := &fixture{arch: g.cfg.Architecture}
	for _, key := range g.file.Keys() {
		if strings.HasPrefix(key, "tokenizer.") {
			continue
		}
		var v any
		switch kind := g.file.Kind(key); kind {
		case "string":
			v, _ = g.file.String(key)
		case "uint32":
			n, _ := g.file.Uint(key)
			v = uint32(n)
		case "float32":
			n, _ := g.file.Float(key)
			v = float32(n)
		case "[]bool":
			v, _ = g.file.Bools(key)
		default:
			t.Fatalf("the key %s is of kind %s", key, kind)
		}
		x.keys = append(x.keys, gguf.KeyValue{Key: key, Value: v})
	}
	x.tensors = slices.Clone(g.file.Tensors())
	return x
}

// set sets a key of the architecture, or one with a dot in front: ".general.architecture". nil removes it.
func (x *fixture) set(key string, value any) *fixture {
	if rest, global := strings.CutPrefix(key, "."); global {
		key = rest
	} else {
		key = x.arch + "." + key
	}
	x.keys = slices.DeleteFunc(x.keys, func(kv gguf.KeyValue) bool { return kv.Key == key })
	if value != nil {
		x.keys = append(x.keys, gguf.KeyValue{Key: key, Value: value})
	}
	return x
}

// drop removes a tensor.
func (x *fixture) drop(name string) *fixture {
	x.tensors = slices.DeleteFunc(x.tensors, func(t gguf.Tensor) bool { return t.Name == name })
	return x
}

// add adds or replaces a tensor of float32; its values count up from 1.
func (x *fixture) add(name string, dims ...int) *fixture {
	n := 1
	for _, d := range dims {
		n *= d
	}
	var data []byte
	for i := range n {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(i+1)))
	}
	x.drop(name)
	x.tensors = append(x.tensors, gguf.Tensor{Name: name, Dims: dims, Type: gguf.F32, Data: data})
	return x
}

// bytes writes the file.
func (x *fixture) bytes(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := gguf.Write(&b, x.keys, x.tensors); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (x *fixture) parse(t testing.TB) *gguf.File {
	t.Helper()
	f, err := gguf.Parse(x.bytes(t))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// convert stores a float32 tensor in another type.
func convert(t testing.TB, from gguf.Tensor, to gguf.Type) gguf.Tensor {
	t.Helper()
	values := make([]float32, len(from.Data)/4)
	kernel.Dequantize(kernel.F32, values, from.Data)
	from.Type, from.Data = to, nil
	halves := func(v ...float32) {
		h := make([]uint16, len(v))
		kernel.Sets()[0].FloatsToHalves(h, v)
		for _, b := range h {
			from.Data = binary.LittleEndian.AppendUint16(from.Data, b)
		}
	}
	switch to {
	case gguf.F32:
		for _, v := range values {
			from.Data = binary.LittleEndian.AppendUint32(from.Data, math.Float32bits(v))
		}
		return from
	case gguf.F16:
		halves(values...)
		return from
	case gguf.BF16:
		for _, v := range values {
			from.Data = binary.LittleEndian.AppendUint16(from.Data, uint16((math.Float32bits(v)+0x8000)>>16))
		}
		return from
	}
	for block := range slices.Chunk(values, 32) {
		low, high := slices.Min(block), slices.Max(block)
		largest := max(high, -low)
		switch to {
		case gguf.Q8_0:
			d := largest / 127
			halves(d)
			for _, v := range block {
				from.Data = append(from.Data, byte(int8(math.RoundToEven(float64(v/d)))))
			}
		case gguf.Q4_0:
			d := largest / 7
			halves(d)
			nibble := func(v float32) byte { return byte(max(0, min(15, math.RoundToEven(float64(v/d))+8))) }
			for i := range 16 {
				from.Data = append(from.Data, nibble(block[i])|nibble(block[i+16])<<4)
			}
		case gguf.Q4_1:
			d := (high - low) / 15
			halves(d, low)
			nibble := func(v float32) byte { return byte(max(0, min(15, math.RoundToEven(float64((v-low)/d))))) }
			for i := range 16 {
				from.Data = append(from.Data, nibble(block[i])|nibble(block[i+16])<<4)
			}
		case gguf.Q5_0:
			d := largest / 15
			halves(d)
			var upper uint32
			nibble := func(i int) byte {
				q := byte(max(0, min(31, math.RoundToEven(float64(block[i]/d))+16)))
				upper |= uint32(q>>4) << i
				return q & 15
			}
			var nibbles []byte
			for i := range 16 {
				nibbles = append(nibbles, nibble(i)|nibble(i+16)<<4)
			}
			from.Data = append(binary.LittleEndian.AppendUint32(from.Data, upper), nibbles...)
		default:
			t.Fatalf("cannot convert to %v", to)
		}
	}
	return from
}

// plain is the same tensor, its values as float32.
func plain(t testing.TB, from gguf.Tensor) gguf.Tensor {
	t.Helper()
	format, ok := formatOf(from.Type)
	if !ok {
		t.Fatalf("no format for %v", from.Type)
	}
	bytes := format.RowBytes(from.Cols())
	values := make([]float32, from.Cols())
	var data []byte
	for r := range from.Rows() {
		kernel.Dequantize(format, values, from.Data[r*bytes:][:bytes])
		for _, v := range values {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
	}
	from.Type, from.Data = gguf.F32, data
	return from
}

// convertAll stores every matrix in the type that choose gives for its name.
func (x *fixture) convertAll(t testing.TB, choose func(name string) gguf.Type) *fixture {
	t.Helper()
	for i, tensor := range x.tensors {
		if len(tensor.Dims) == 2 {
			x.tensors[i] = convert(t, tensor, choose(tensor.Name))
		}
	}
	return x
}
