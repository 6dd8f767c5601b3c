package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
)

// raw builds bytes field by field, as no honest writer would.
type raw []byte

func header(version uint32, tensors, keys uint64) raw {
	return raw(magic).u32(version).u64(tensors).u64(keys)
}
func (r raw) u32(v uint32) raw    { return binary.LittleEndian.AppendUint32(r, v) }
func (r raw) u64(v uint64) raw    { return binary.LittleEndian.AppendUint64(r, v) }
func (r raw) str(s string) raw    { return append(r.u64(uint64(len(s))), s...) }
func (r raw) bytes(b ...byte) raw { return append(r, b...) }
func (r raw) pad(n int) raw       { return append(r, make([]byte, n)...) }

func (r raw) tensor(name string, typ Type, offset uint64, dims ...uint64) raw {
	r = r.str(name).u32(uint32(len(dims)))
	for _, d := range dims {
		r = r.u64(d)
	}
	return r.u32(uint32(typ)).u64(offset)
}

func key(name string, k kind) raw { return header(3, 0, 1).str(name).u32(uint32(k)) }

func TestHostile(t *testing.T) {
	const huge = math.MaxUint64
	bigEndian := binary.BigEndian.AppendUint32([]byte(magic), 3)
	one := header(3, 1, 0)
	two := header(3, 2, 0)
	for name, c := range map[string]struct {
		data []byte
		want []string // parts of the message
	}{
		"nothing":               {nil, []string{"not a GGUF"}},
		"other file":            {[]byte("%PDF-1.7 and so on for long enough"), []string{"not a GGUF"}},
		"only magic":            {[]byte(magic), []string{"cut off"}},
		"half a header":         {header(3, 0, 0)[:20], []string{"cut off"}},
		"version 0":             {header(0, 0, 0), []string{"version 0"}},
		"version 1":             {header(1, 0, 0), []string{"version 1", "convert"}},
		"version 4":             {header(4, 0, 0), []string{"version 4"}},
		"big-endian":            {raw(bigEndian).pad(16), []string{"big-endian"}},
		"keys without end":      {header(3, 0, huge).pad(1000), []string{"metadata keys"}},
		"keys beyond the file":  {header(3, 0, 100).pad(1000), []string{"100 metadata keys"}},
		"too many keys":         {header(3, 0, maxKeys+1).pad(minKeyBytes * (maxKeys + 1)), []string{"metadata keys"}},
		"tensors without end":   {header(3, huge, 0).pad(1000), []string{"tensors"}},
		"too many tensors":      {header(3, maxTensors+1, 0).pad(minTensorBytes * (maxTensors + 1)), []string{"tensors"}},
		"empty key":             {header(3, 0, 1).str("").u32(0).pad(20), []string{"number 0", "empty"}},
		"long key":              {header(3, 0, 1).u64(huge).pad(100), []string{"number 0", "name"}},
		"cut-off key":           {header(3, 0, 1).u64(1000).pad(100), []string{"number 0", "ends"}},
		"key twice":             {header(3, 0, 2).str("k").u32(7).bytes(1).str("k").u32(7).bytes(1), []string{`"k"`, "twice"}},
		"unknown value type":    {key("k", 13).pad(100), []string{`"k"`, "type 13"}},
		"bool of 2":             {key("k", kindBool).bytes(2).pad(9), []string{`"k"`, "bool"}},
		"cut-off number":        {key("k", kindUint64).pad(7), []string{`"k"`}},
		"cut-off string":        {key("k", kindString).u64(10).pad(9), []string{`"k"`, "string"}},
		"endless string":        {key("k", kindString).u64(huge).pad(9), []string{`"k"`, "string"}},
		"endless array":         {key("k", kindArray).u32(uint32(kindUint8)).u64(huge).pad(9), []string{`"k"`, "uint8"}},
		"array that overflows":  {key("k", kindArray).u32(uint32(kindUint64)).u64(1 << 61).pad(9), []string{`"k"`, "uint64"}},
		"endless string array":  {key("k", kindArray).u32(uint32(kindString)).u64(huge).pad(90), []string{`"k"`, "string"}},
		"string beyond array":   {key("k", kindArray).u32(uint32(kindString)).u64(2).str("a").u64(9).pad(8), []string{`"k"`, "number 1"}},
		"bool of 7 in array":    {key("k", kindArray).u32(uint32(kindBool)).u64(2).bytes(1, 7), []string{`"k"`, "bool"}},
		"array of arrays":       {key("k", kindArray).u32(uint32(kindArray)).u64(1).pad(90), []string{`"k"`, "array of arrays"}},
		"unknown element type":  {key("k", kindArray).u32(77).u64(0).pad(90), []string{`"k"`, "type 77"}},
		"control bytes in key":  {key("\x1b[2J", 13).pad(90), []string{`"\x1b[2J"`}},
		"alignment 0":           {key(keyAlignment, kindUint32).u32(0), []string{keyAlignment, "power of two"}},
		"alignment 48":          {key(keyAlignment, kindUint32).u32(48), []string{keyAlignment, "power of two"}},
		"alignment 4":           {key(keyAlignment, kindUint32).u32(4), []string{keyAlignment, "power of two"}},
		"alignment 2^31":        {key(keyAlignment, kindUint32).u32(1 << 31), []string{keyAlignment, "power of two"}},
		"alignment -32":         {key(keyAlignment, kindInt32).u32(0xffffffe0), []string{keyAlignment, "power of two"}},
		"alignment as string":   {key(keyAlignment, kindString).str("32"), []string{keyAlignment}},
		"tensor without name":   {one.tensor("", F32, 0, 1).pad(99), []string{"number 0", "empty"}},
		"tensor twice":          {two.tensor("t", F32, 0, 8).tensor("t", F32, 32, 8).pad(999), []string{`"t"`, "twice"}},
		"no dimensions":         {one.tensor("t", F32, 0).pad(999), []string{`"t"`, "0 dimensions"}},
		"five dimensions":       {one.tensor("t", F32, 0, 1, 1, 1, 1, 1).pad(999), []string{`"t"`, "5 dimensions"}},
		"dimensions claimed":    {one.str("t").u32(math.MaxUint32).pad(999), []string{`"t"`, "dimensions"}},
		"dimension 0":           {one.tensor("t", F32, 0, 4, 0).pad(999), []string{`"t"`, "dimension 1 is 0"}},
		"dimension 2^63":        {one.tensor("t", F32, 0, 1<<63).pad(999), []string{`"t"`, "dimension 0"}},
		"product overflows":     {one.tensor("t", F32, 0, 1<<32, 1<<32).pad(999), []string{`"t"`, "too large"}},
		"product wraps to 0":    {one.tensor("t", F32, 0, 1<<32, 1<<16, 1<<16).pad(999), []string{`"t"`, "too large"}},
		"bytes overflow":        {one.tensor("t", F64, 0, 1<<61).pad(999), []string{`"t"`, "too large"}},
		"part of a block":       {one.tensor("t", Q4_1, 0, 33).pad(999), []string{`"t"`, "q4_1", "33"}},
		"blocks across rows":    {one.tensor("t", Q4_K, 0, 32, 8).pad(9999), []string{`"t"`, "q4_k"}},
		"unknown tensor type":   {one.tensor("t", 99, 0, 32).pad(9999), []string{`"t"`, "type 99"}},
		"removed tensor type":   {one.tensor("t", 31, 0, 32).pad(9999), []string{`"t"`, "type 31"}},
		"misaligned":            {one.tensor("t", F32, 4, 8).pad(999), []string{`"t"`, "aligned"}},
		"offset beyond the end": {one.tensor("t", F32, 1<<20, 8).pad(999), []string{`"t"`, "beyond the end"}},
		"offset wraps":          {one.tensor("t", F32, huge-31, 8).pad(999), []string{`"t"`, "beyond the end"}},
		"offset at 2^63 - 32":   {one.tensor("t", F32, 1<<63-32, 8).pad(999), []string{`"t"`, "beyond the end"}},
		"one byte short":        {one.tensor("t", F32, 0, 8).pad(7 + 31), []string{`"t"`, "beyond the end"}},
		"no data section":       {one.tensor("t", F32, 0, 8), []string{`"t"`, "beyond the end"}},
		"same data":             {two.tensor("t", F32, 0, 8).tensor("u", F32, 0, 8).pad(999), []string{"overlap", `"t"`, `"u"`}},
		"overlap":               {two.tensor("t", F32, 32, 8).tensor("u", F32, 0, 9).pad(999), []string{"overlap", `"t"`, `"u"`}},
		"cut in a tensor":       {two.tensor("t", F32, 0, 8).str("u").u32(4).u64(1).u64(1).u64(1).pad(7), []string{`"u"`}},
	} {
		f, err := Parse(c.data)
		if err == nil {
			t.Errorf("%s: no error, %d tensors", name, len(f.Tensors()))
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q should mention %q", name, err, part)
			}
		}
	}
}

// What looks odd but is legal.
func TestLenient(t *testing.T) {
	for name, data := range map[string][]byte{
		"nothing inside":      header(3, 0, 0),
		"exact end":           header(3, 1, 0).tensor("t", F32, 0, 8).pad(7 + 32),
		"trailing bytes":      header(3, 1, 0).tensor("t", F32, 0, 8).pad(999),
		"gap, order reversed": header(3, 2, 0).tensor("t", F32, 64, 8).tensor("u", F32, 0, 8).pad(999),
		"alignment 8":         header(3, 1, 1).str(keyAlignment).u32(uint32(kindUint64)).u64(8).tensor("t", F32, 8, 1).pad(99),
		"empty array":         key("k", kindArray).u32(uint32(kindString)).u64(0),
	} {
		f, err := Parse(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		check(t, f)
	}
}

// check holds a parsed file to the package's invariant and calls everything that decodes.
func check(t *testing.T, f *File) {
	t.Helper()
	seen := map[string]bool{}
	for _, k := range f.Keys() {
		if seen[k] || k == "" {
			t.Fatalf("key %q", k)
		}
		seen[k] = true
		if all := got(f, k); all["kind"] == "" {
			t.Fatalf("key %q has no kind", k)
		}
	}
	taken := map[int64]string{}
	for i := range f.Tensors() {
		x := &f.Tensors()[i]
		elements, size := x.Type.Block()
		if len(x.Data) == 0 || len(x.Data) != x.Rows()*(x.Cols()/elements)*size {
			t.Fatalf("tensor %q of %v: %d bytes", x.Name, x.Dims, len(x.Data))
		}
		if &f.data[x.Offset] != &x.Data[0] || x.Offset+int64(len(x.Data)) > f.Size {
			t.Fatalf("tensor %q lies elsewhere than it says", x.Name)
		}
		for at := x.Offset; at < x.Offset+int64(len(x.Data)); at++ {
			if other, ok := taken[at]; ok {
				t.Fatalf("tensors %q and %q share byte %d", x.Name, other, at)
			}
			taken[at] = x.Name
		}
		if y, ok := f.Tensor(x.Name); !ok || y != x {
			t.Fatalf("tensor %q is not found by its name", x.Name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(build(f, 2))
	f.Add(build(f, 3))
	f.Add([]byte(header(3, 2, 1).str(keyAlignment).u32(uint32(kindUint32)).u32(8).tensor("t", F16, 0, 2).tensor("u", Q8_0, 8, 32, 2).pad(99)))
	for _, name := range []string{"gemma3", "olmo3"} {
		data, err := os.ReadFile(fmt.Sprintf("testdata/%s.header", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if file, err := Parse(data); err == nil {
			check(t, file)
		}
	})
}
