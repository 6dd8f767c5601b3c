package main

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/tokenizer"
)

func ignore(int64, int64) {}

// What is written opens, has the types that were asked for, and gives finite logits.
func TestSynthRuns(t *testing.T) {
	shape, err := synthShapeOf("1M")
	if err != nil {
		t.Fatal(err)
	}
	for _, weights := range synthTypes() {
		t.Run(weights.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out.gguf")
			m := synthModel{synthShape: shape, weights: weights, seed: 7}
			var last, total int64
			if err := m.writeFile(t.Context(), path, false, func(done, all int64) {
				if done < last {
					t.Errorf("from %d back to %d", last, done)
				}
				last, total = done, all
			}); err != nil {
				t.Fatal(err)
			}
			f, err := gguf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if last != total || total > f.Size || total < f.Size/2 {
				t.Errorf("wrote %d of %d, and the file has %d", last, total, f.Size)
			}
			for _, tensor := range f.Tensors() {
				want := weights
				if len(tensor.Dims) == 1 {
					want = gguf.F32
				}
				if tensor.Type != want {
					t.Errorf("%s is of the type %v", tensor.Name, tensor.Type)
				}
				checkMoments(t, &tensor)
			}
			tokens, err := tokenizer.New(f)
			if err != nil {
				t.Fatal(err)
			}
			const text = "daisy 雏菊"
			if got := tokens.Decode(tokens.Encode(text, tokenizer.Options{}), false); got != text {
				t.Errorf("%q comes back as %q", text, got)
			}

			w, err := loadWhole(t.Context(), path, wholeOptions{Context: 8, Threads: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer w.close()
			x, err := w.step(randomIDs(8, w.cfg.Vocab, 0), 0)
			if err != nil {
				t.Fatal(err)
			}
			logits, err := w.head(x)
			if err != nil {
				t.Fatal(err)
			}
			sum, squares := 0.0, 0.0
			for _, v := range logits {
				sum, squares = sum+float64(v), squares+float64(v)*float64(v)
			}
			n := float64(len(logits))
			if root := math.Sqrt(squares / n); !(root > 0.2 && root < 5) || math.Abs(sum/n) > 1 {
				t.Errorf("the logits' mean is %v, and their root mean square %v", sum/n, root)
			}
		})
	}
}

// checkMoments: a mean of about 0 and a variance of about 1/cols.
func checkMoments(t *testing.T, tensor *gguf.Tensor) {
	t.Helper()
	if len(tensor.Dims) == 1 {
		return
	}
	for format := kernel.F32; format <= kernel.Q6_K; format++ {
		if format.String() != tensor.Type.String() {
			continue
		}
		sum, squares, n := 0.0, 0.0, 0.0
		row := make([]float32, tensor.Cols())
		for i := range tensor.Rows() {
			bytes := format.RowBytes(len(row))
			kernel.Dequantize(format, row, tensor.Data[i*bytes:][:bytes])
			for _, v := range row {
				sum, squares, n = sum+float64(v), squares+float64(v)*float64(v), n+1
			}
		}
		sigma := math.Sqrt(squares / n * float64(len(row)))
		if mean := sum / n * math.Sqrt(float64(len(row))); !(sigma > 0.6 && sigma < 1.5) || math.Abs(mean) > 0.2 {
			t.Errorf("%s: mean %v, deviation %v, of the one aimed at", tensor.Name, mean, sigma)
		}
		return
	}
	t.Errorf("%s: the kernels know no %v", tensor.Name, tensor.Type)
}

func TestSynthIsDeterministic(t *testing.T) {
	shape, err := synthShapeOf("1m")
	if err != nil {
		t.Fatal(err)
	}
	write := func(seed uint64) []byte {
		var b bytes.Buffer
		m := synthModel{synthShape: shape, weights: gguf.Q4_0, seed: seed}
		if err := m.write(t.Context(), &b, ignore); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	one := write(1)
	if !bytes.Equal(one, write(1)) {
		t.Error("the same seed gives two files")
	}
	if bytes.Equal(one, write(2)) {
		t.Error("two seeds give the same file")
	}
}

// Every shape is one that Daisy knows, and its vocabulary has as many tokens as the embedding has rows.
func TestSynthShapes(t *testing.T) {
	for _, shape := range synthShapes() {
		m := synthModel{synthShape: shape, weights: gguf.Q8_0}
		if err := m.check(m.tensors()); err != nil {
			t.Errorf("%s: %v", shape.name, err)
		}
		tokens, scores, kinds := synthVocabulary(shape.vocab)
		if len(tokens) != shape.vocab || len(scores) != shape.vocab || len(kinds) != shape.vocab {
			t.Errorf("%s: %d tokens, want %d", shape.name, len(tokens), shape.vocab)
		}
		seen := map[string]bool{}
		for _, text := range tokens {
			if seen[text] {
				t.Fatalf("%s: two tokens are %q", shape.name, text)
			}
			seen[text] = true
		}
	}
	for n, want := range map[int]string{0: "a", 25: "z", 26: "aa", 27: "ab", 701: "zz", 702: "aaa"} {
		if got := word(n); got != want {
			t.Errorf("word %d is %q, want %q", n, got, want)
		}
	}
}

func TestSynthRefuses(t *testing.T) {
	for _, name := range []string{"", "7", "gpt"} {
		if _, err := synthShapeOf(name); err == nil || !strings.Contains(err.Error(), "mistral-7b") {
			t.Errorf("shape %q: %v", name, err)
		}
	}
	for _, name := range []string{"", "q4", "iq2_s"} {
		if _, err := synthType(name); err == nil || !strings.Contains(err.Error(), "q4_k") {
			t.Errorf("type %q: %v", name, err)
		}
	}
	shape, err := synthShapeOf("135m")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	odd := synthModel{synthShape: shape, weights: gguf.Q4_K} // rows of 576 have no whole blocks of 256
	if err := odd.writeFile(t.Context(), filepath.Join(dir, "odd.gguf"), false, ignore); err == nil || !strings.Contains(err.Error(), "256") {
		t.Errorf("odd rows: %v", err)
	}
	fits := synthModel{synthShape: shape, weights: gguf.Q4_0}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	if err := fits.writeFile(ctx, filepath.Join(dir, "cut.gguf"), false, ignore); !errors.Is(err, errInterrupted) {
		t.Errorf("interrupted: %v", err)
	}
	if err := fits.write(t.Context(), fullDisk{}, ignore); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
}
