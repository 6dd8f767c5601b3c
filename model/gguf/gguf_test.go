package gguf

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// build is a small file with a value of every kind and tensors of several types.
func build(t testing.TB, version uint32) []byte {
	t.Helper()
	data := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i + n)
		}
		return b
	}
	return write(t, version, []KeyValue{
		{"general.architecture", "llama"},
		{"u8", uint8(200)}, {"i8", int8(-3)}, {"u16", uint16(60000)}, {"i16", int16(-300)},
		{"u32", uint32(4e9)}, {"i32", int32(-70000)}, {"u64", uint64(math.MaxUint64)}, {"i64", int64(math.MinInt64)},
		{"f32", float32(1.5)}, {"f64", 0.1}, {"yes", true}, {"no", false}, {"empty", ""}, {"name", " spaces stay "},
		{"strings", []string{"a", "", "▁日本", "\xff"}}, {"no strings", []string{}},
		{"ints", []int32{-1, 2}}, {"bytes", []uint8{1, 255}}, {"huge", []uint64{1, math.MaxUint64}},
		{"floats", []float32{0.5, -2}}, {"doubles", []float64{0.25}}, {"bools", []bool{true, false}},
	}, []Tensor{
		{Name: "embed", Dims: []int{64, 3}, Type: Q4_1, Data: data(2 * 3 * 20)},
		{Name: "norm", Dims: []int{5}, Type: F32, Data: data(20)},
		{Name: "experts", Dims: []int{256, 2, 3}, Type: Q6_K, Data: data(6 * 210)},
	})
}

func write(t testing.TB, version uint32, metadata []KeyValue, tensors []Tensor) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, metadata, tensors); err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(b.Bytes()[4:], version) // 2 and 3 differ in nothing else
	return b.Bytes()
}

func parse(t testing.TB, data []byte) *File {
	t.Helper()
	f, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestReadBack(t *testing.T) {
	for _, version := range []uint32{2, 3} {
		data := build(t, version)
		path := filepath.Join(t.TempDir(), "model.gguf")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "header", []any{f.Path, f.Version, f.Size, f.Alignment}, []any{path, version, int64(len(data)), 32})
		if len(f.Tensors()) != 3 {
			t.Fatalf("%d tensors", len(f.Tensors()))
		}
		for i, want := range []struct {
			name             string
			rows, cols, size int
			typ              Type
		}{{"embed", 3, 64, 120, Q4_1}, {"norm", 1, 5, 20, F32}, {"experts", 6, 256, 1260, Q6_K}} {
			tensor, ok := f.Tensor(want.name)
			if !ok || tensor != &f.Tensors()[i] {
				t.Fatalf("tensor %s is not found in its place", want.name)
			}
			equal(t, want.name, []any{tensor.Rows(), tensor.Cols(), len(tensor.Data), tensor.Type, tensor.Data[0]},
				[]any{want.rows, want.cols, want.size, want.typ, byte(want.size)})
			equal(t, "bytes of "+want.name, tensor.Data, data[tensor.Offset:tensor.Offset+int64(want.size)])
			f.Release(tensor, 0, len(tensor.Data)/2)
			f.Release(tensor, len(tensor.Data)/2, len(tensor.Data))
			equal(t, "bytes after release", tensor.Data[0], byte(want.size))
		}
		if _, ok := f.Tensor("other"); ok {
			t.Error("found a tensor that is not there")
		}
		f.ReleaseAll()
		equal(t, "keys", f.Keys()[:3], []string{"general.architecture", "u8", "i8"})
		for range 2 {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		f.ReleaseAll() // nothing to release, and nothing to crash on
	}
}

// got is what all getters say about a key; nil where they say no.
func got(f *File, key string) map[string]any {
	m := map[string]any{}
	put := func(name string, v any, ok bool) {
		if ok {
			m[name] = v
		}
	}
	u, ok := f.Uint(key)
	put("uint", u, ok)
	i, ok := f.Int(key)
	put("int", i, ok)
	x, ok := f.Float(key)
	put("float", x, ok)
	b, ok := f.Bool(key)
	put("bool", b, ok)
	s, ok := f.String(key)
	put("string", s, ok)
	ss, ok := f.Strings(key)
	put("strings", ss, ok)
	is, ok := f.Ints(key)
	put("ints", is, ok)
	fs, ok := f.Floats(key)
	put("floats", fs, ok)
	bs, ok := f.Bools(key)
	put("bools", bs, ok)
	put("kind", f.Kind(key), f.Has(key))
	return m
}

func TestGetters(t *testing.T) {
	f := parse(t, build(t, 3))
	type m = map[string]any
	for key, want := range map[string]m{
		"missing":    {},
		"u8":         {"kind": "uint8", "uint": uint64(200), "int": int64(200), "float": 200.0},
		"i8":         {"kind": "int8", "int": int64(-3), "float": -3.0},
		"u16":        {"kind": "uint16", "uint": uint64(60000), "int": int64(60000), "float": 60000.0},
		"i16":        {"kind": "int16", "int": int64(-300), "float": -300.0},
		"u32":        {"kind": "uint32", "uint": uint64(4e9), "int": int64(4e9), "float": 4e9},
		"i32":        {"kind": "int32", "int": int64(-70000), "float": -70000.0},
		"u64":        {"kind": "uint64", "uint": uint64(math.MaxUint64), "float": float64(math.MaxUint64)},
		"i64":        {"kind": "int64", "int": int64(math.MinInt64), "float": float64(math.MinInt64)},
		"f32":        {"kind": "float32", "float": 1.5},
		"f64":        {"kind": "float64", "float": 0.1},
		"yes":        {"kind": "bool", "bool": true},
		"no":         {"kind": "bool", "bool": false},
		"empty":      {"kind": "string", "string": ""},
		"name":       {"kind": "string", "string": " spaces stay "},
		"strings":    {"kind": "[]string", "strings": []string{"a", "", "▁日本", "\xff"}},
		"no strings": {"kind": "[]string", "strings": []string{}},
		"ints":       {"kind": "[]int32", "ints": []int64{-1, 2}},
		"bytes":      {"kind": "[]uint8", "ints": []int64{1, 255}},
		"huge":       {"kind": "[]uint64"},
		"floats":     {"kind": "[]float32", "floats": []float32{0.5, -2}},
		"doubles":    {"kind": "[]float64", "floats": []float32{0.25}},
		"bools":      {"kind": "[]bool", "bools": []bool{true, false}},
	} {
		equal(t, key, got(f, key), want)
	}
}

// The first bytes of two golden models, with zeros for their weights.
func TestGoldenHeaders(t *testing.T) {
	header, err := os.ReadFile("testdata/gemma3.header")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(header); err == nil || !strings.Contains(err.Error(), "beyond the end") {
		t.Errorf("a file without its weights: %v", err)
	}
	f := parse(t, append(header, make([]byte, 1311616-len(header))...))
	architecture, _ := f.String("general.architecture")
	tokens, _ := f.Strings("tokenizer.ggml.tokens")
	scores, _ := f.Floats("tokenizer.ggml.scores")
	equal(t, "gemma3", []any{architecture, len(f.Tensors()), f.Tensors()[0].Offset, len(tokens) > 100, len(scores)},
		[]any{"gemma3", 106, int64(16000), true, len(tokens)})

	if header, err = os.ReadFile("testdata/olmo3.header"); err != nil {
		t.Fatal(err)
	}
	f = parse(t, append(header, make([]byte, 965472-len(header))...))
	pattern, ok := f.Bools("olmo2.attention.sliding_window_pattern")
	if layers, _ := f.Int("olmo2.block_count"); !ok || int64(len(pattern)) != layers {
		t.Errorf("%d layers, but sliding_window_pattern %v", layers, pattern)
	}
	if embed, ok := f.Tensor("token_embd.weight"); !ok || embed.Cols() != 64 || embed.Type != F32 {
		t.Errorf("token_embd.weight is %+v", embed)
	}
}

// Sizes of an 8 x 512 matrix, as ggml itself quantised it.
func TestTypeSizes(t *testing.T) {
	for typ, want := range map[Type]struct {
		name string
		size int
	}{
		F32: {"f32", 16384}, F16: {"f16", 8192}, BF16: {"bf16", 8192}, Q4_0: {"q4_0", 2304}, Q4_1: {"q4_1", 2560},
		Q5_0: {"q5_0", 2816}, Q5_1: {"q5_1", 3072}, Q8_0: {"q8_0", 4352}, Q2_K: {"q2_k", 1344}, Q3_K: {"q3_k", 1760},
		Q4_K: {"q4_k", 2304}, Q5_K: {"q5_k", 2816}, Q6_K: {"q6_k", 3360}, IQ1_S: {"iq1_s", 800}, IQ1_M: {"iq1_m", 896},
		IQ2_XXS: {"iq2_xxs", 1056}, IQ2_XS: {"iq2_xs", 1184}, IQ2_S: {"iq2_s", 1312}, IQ3_XXS: {"iq3_xxs", 1568},
		IQ3_S: {"iq3_s", 1760}, IQ4_NL: {"iq4_nl", 2304}, IQ4_XS: {"iq4_xs", 2176}, TQ1_0: {"tq1_0", 864},
		TQ2_0: {"tq2_0", 1056}, MXFP4: {"mxfp4", 2176},
	} {
		elements, bytes := typ.Block()
		if typ.String() != want.name || 8*512/elements*bytes != want.size {
			t.Errorf("%v: blocks of %d in %d bytes, want %s with %d bytes in all", typ, elements, bytes, want.name, want.size)
		}
	}
	if elements, bytes := Type(99).Block(); elements != 0 || bytes != 0 || Type(99).String() != "type 99" {
		t.Errorf("an unknown type: %v, %d, %d", Type(99), elements, bytes)
	}
}

// Parsing may cost a small multiple of the file, however many keys and tensors are squeezed into it.
func TestMemory(t *testing.T) {
	var metadata []KeyValue
	for i := range 50000 {
		metadata = append(metadata, KeyValue{string([]byte{byte(i), byte(i >> 8), 'k'}), true})
	}
	var tensors []Tensor
	for i := range 50000 {
		tensors = append(tensors, Tensor{Name: string([]byte{byte(i), byte(i >> 8), 't'}), Dims: []int{1}, Type: I8, Data: []byte{0}})
	}
	data := write(t, 3, metadata, tensors)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f := parse(t, data)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 16*uint64(len(data)) || len(f.Keys()) != 50000 {
		t.Errorf("a file of %d bytes took %d bytes of memory", len(data), used)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.gguf")
	text := filepath.Join(dir, "text.gguf")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(text, []byte("version https://git-lfs.github.com/spec/v1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                           "is a directory",
		empty:                         "is empty",
		text:                          "not a GGUF file",
		filepath.Join(dir, "missing"): "no such file",
		os.DevNull:                    "is not a regular file",
	} {
		f, err := Open(path)
		if err == nil || !strings.Contains(err.Error(), want) && !(want == "no such file" && os.IsNotExist(err)) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
		if err != nil && strings.Count(err.Error(), path) != 1 {
			t.Errorf("%v: should name the path once", err)
		}
		if f != nil {
			t.Errorf("%s: a file beside an error", path)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, err := range map[string]error{
		"short data":  Write(&bytes.Buffer{}, nil, []Tensor{{Name: "t", Dims: []int{4}, Type: F32, Data: make([]byte, 15)}}),
		"no dims":     Write(&bytes.Buffer{}, nil, []Tensor{{Name: "t", Type: F32}}),
		"part block":  Write(&bytes.Buffer{}, nil, []Tensor{{Name: "t", Dims: []int{31}, Type: Q8_0}}),
		"struct":      Write(&bytes.Buffer{}, []KeyValue{{"k", struct{}{}}}, nil),
		"plain int":   Write(&bytes.Buffer{}, []KeyValue{{"k", 1}}, nil),
		"nothing":     Write(&bytes.Buffer{}, []KeyValue{{"k", nil}}, nil),
		"nested":      Write(&bytes.Buffer{}, []KeyValue{{"k", [][]string{{"a"}}}}, nil),
		"alignment":   Write(&bytes.Buffer{}, []KeyValue{{"general.alignment", uint32(0)}}, nil),
		"full device": Write(fullDevice{}, []KeyValue{{"k", "v"}}, nil),
		"large":       Write(fullDevice{}, nil, []Tensor{{Name: "t", Dims: []int{1 << 20}, Type: I8, Data: make([]byte, 1<<20)}}),
		"long stream": Stream(&bytes.Buffer{}, nil, []Tensor{{Name: "t", Dims: []int{4}, Type: I8}}, func(w io.Writer, _ *Tensor) error {
			_, err := w.Write(make([]byte, 5))
			return err
		}),
		"no source": Stream(&bytes.Buffer{}, nil, []Tensor{{Name: "t", Dims: []int{4}, Type: I8}}, func(io.Writer, *Tensor) error {
			return os.ErrClosed
		}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A tensor that comes in pieces makes the same file as one that comes whole.
func TestStream(t *testing.T) {
	metadata := []KeyValue{{"k", "v"}}
	tensors := []Tensor{
		{Name: "a", Dims: []int{3, 5}, Type: I8, Data: []byte("0123456789abcde")},
		{Name: "b", Dims: []int{2}, Type: I16, Data: []byte("wxyz")},
	}
	var whole, pieces bytes.Buffer
	if err := Write(&whole, metadata, tensors); err != nil {
		t.Fatal(err)
	}
	err := Stream(&pieces, metadata, tensors, func(w io.Writer, t *Tensor) error {
		for i := range t.Data {
			if _, err := w.Write(t.Data[i : i+1]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || !bytes.Equal(whole.Bytes(), pieces.Bytes()) {
		t.Errorf("%v:\n%q\n%q", err, pieces.Bytes(), whole.Bytes())
	}
	f, err := Parse(pieces.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := f.Tensor("b"); !ok || string(b.Data) != "wxyz" {
		t.Errorf("b is %+v", b)
	}
}

type fullDevice struct{}

func (fullDevice) Write([]byte) (int, error) { return 0, os.ErrClosed }
