package kernel

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// tensors is a safetensors file: name to raw little-endian bytes.
type tensors map[string][]byte

func readTensors(t testing.TB, path string) tensors {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(b)
	var header map[string]struct {
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(b[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	all := tensors{}
	for name, h := range header {
		all[name] = b[8+n:][h.Offsets[0]:h.Offsets[1]]
	}
	return all
}

func (t tensors) floats(name string) []float32 {
	out := make([]float32, len(t[name])/4)
	for i := range out {
		out[i] = f32At(t[name], i)
	}
	return out
}

// TestGoldenValues compares with ggml's values of the same blocks, and with its dot products.
func TestGoldenValues(t *testing.T) {
	const rows, cols = 8, 512
	for _, f := range allFormats[1:] {
		golden := readTensors(t, filepath.Join("testdata/quants", f.String()+".safetensors"))
		t.Run(f.String(), func(t *testing.T) {
			for _, pair := range [][2]string{{"raw", "dequant"}, {"random_raw", "random_dequant"}} {
				raw, want := golden[pair[0]], golden.floats(pair[1])
				got := make([]float32, cols)
				for r := range len(want) / cols {
					Dequantize(f, got, raw[r*f.RowBytes(cols):][:f.RowBytes(cols)])
					checkBits(t, "row", got, want[r*cols:][:cols])
				}
			}

			m := NewMatrix(Aligned(PackedSize(f, rows, cols)), f, rows, cols)
			m.Pack(0, m.Groups(), golden["raw"])
			x := golden.floats("x")
			var scale float64
			for _, v := range x {
				scale += float64(v) * float64(v)
			}
			scale = math.Sqrt(scale)
			tolerance := 1e-6
			if f.Quantized() {
				tolerance = 4e-3 // the activations are int8
			}
			for _, set := range Sets() {
				out := make([]float32, rows)
				multiply(set, out, m, x, 1)
				for r := range rows {
					want := math.Float64frombits(binary.LittleEndian.Uint64(golden["dot"][8*r:]))
					norm := 0.0
					for _, v := range golden.floats("dequant")[r*cols:][:cols] {
						norm += float64(v) * float64(v)
					}
					if d := math.Abs(float64(out[r]) - want); d > tolerance*scale*math.Sqrt(norm) {
						t.Errorf("%s: row %d: %g, want %g", set.Name, r, out[r], want)
					}
				}
			}
		})
	}
}
