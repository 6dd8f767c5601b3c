package model

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model/kvcache"
	ids "github.com/daisy-llm/daisy/model/token"
)

func TestForwardRefuses(t *testing.T) {
	g := openGolden(t, "llama")
	c := newChain(t, g.file, nil, kvcache.F16, Options{})
	b, hidden := c.blocks[0], g.cfg.Hidden
	small, err := kvcache.NewPool(kvcache.Config{Type: kvcache.F16, KVHeads: 2, HeadDim: 16, Bytes: kvcache.Bytes(kvcache.F16, 2, 16, 64) * 4})
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	other, err := kvcache.NewPool(kvcache.Config{Type: kvcache.F16, KVHeads: 1, HeadDim: 16, Bytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s := c.sequence()[0]
	x := make([]float32, 3*hidden)
	for _, e := range []struct {
		name    string
		x       []float32
		entries []Entry
		want    string
	}{
		{"no cache", x, []Entry{{Count: 3}}, "no cache"},
		{"cache of another block", x, []Entry{{Cache: c.pools[0].NewSequence(3), Count: 3}}, "no cache for the block's 4 layers"},
		{"cache of another model", x, []Entry{{Cache: other.NewSequence(4), Count: 3}}, "another shape"},
		{"gap", x, []Entry{{Cache: s, First: 1, Count: 3}}, "a gap"},
		{"no positions", x, []Entry{{Cache: s, Count: 0}}, "0 positions"},
		{"negative position", x, []Entry{{Cache: s, First: -1, Count: 3}}, "3 positions from -1"},
		{"too far", x, []Entry{{Cache: s, First: math.MaxInt32, Count: 3}}, "3 positions from"},
		{"too many", x, []Entry{{Cache: s, Count: math.MaxInt}}, "positions from 0"},
		{"twice", x, []Entry{{Cache: s, Count: 2}, {Cache: s, Count: 1}}, "entries 0 and 1 are of one sequence"},
		{"too few values", x[1:], []Entry{{Cache: s, Count: 3}}, "values for 3 rows of 64"},
		{"nothing for something", nil, []Entry{{Cache: s, Count: 3}}, "0 values for 3 rows"},
		{"full", make([]float32, 65*hidden), []Entry{{Cache: small.NewSequence(4), Count: 65}}, "full"},
	} {
		err := b.Forward(e.x, e.entries)
		if err == nil || !strings.Contains(err.Error(), e.want) {
			t.Errorf("%s: error %v, want one with %q", e.name, err, e.want)
		}
		if full := e.name == "full"; errors.Is(err, kvcache.ErrFull) != full {
			t.Errorf("%s: is it ErrFull? %v", e.name, err)
		}
	}
	if s.Len() != 0 || small.Used() != 0 {
		t.Errorf("%d positions and %d bytes are held after refusals", s.Len(), small.Used())
	}
	if err := b.Forward(nil, nil); err != nil {
		t.Errorf("an empty batch: %v", err)
	}
	for _, id := range []ids.ID{-1, 416, math.MaxInt32} {
		if err := b.Embed(x[:hidden], []ids.ID{id}); err == nil || !strings.Contains(err.Error(), "not in the vocabulary of 416") {
			t.Errorf("token %d: %v", id, err)
		}
	}
	if err := b.Embed(x, []ids.ID{1}); err == nil {
		t.Error("three rows for one token")
	}
	logits := make([]float32, 416)
	for _, bad := range [][2][]float32{{logits, x}, {logits, x[:1]}, {nil, nil}, {logits[:5], x[:hidden]}} {
		if err := b.Head(bad[0], bad[1]); err == nil {
			t.Errorf("head of %d values into %d", len(bad[1]), len(bad[0]))
		}
	}
	middle, err := LoadBlock(t.Context(), g.file, g.cfg, Layers{1, 2}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer middle.Close()
	if err := middle.Embed(x[:hidden], []ids.ID{1}); err == nil || !strings.Contains(err.Error(), "does not hold the token embedding") {
		t.Errorf("embed in the middle: %v", err)
	}
	if err := middle.Head(logits, x[:hidden]); err == nil || !strings.Contains(err.Error(), "does not hold the output head") {
		t.Errorf("head in the middle: %v", err)
	}
}

// TestSizes compares what is measured with what is loaded.
func TestSizes(t *testing.T) {
	for _, name := range []string{"qwen2", "llama", "olmo3", "gemma2"} {
		g := openGolden(t, name)
		x := fixtureOf(t, g).convertAll(t, mixed)
		g.file = x.parse(t)
		sizes, err := SizesOf(g.file, g.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []Layers{{0, 4}, {0, 0}, {1, 3}, {4, 4}} {
			for _, head := range []bool{false, true} {
				var last, total int64
				b, err := LoadBlock(t.Context(), g.file, g.cfg, part, Options{Embedding: !head, Head: head, Threads: 2, MaxRows: 9, Progress: func(done, all int64) {
					if done <= last || done > all {
						t.Errorf("%s: progress from %d to %d of %d", name, last, done, all)
					}
					last, total = done, all
				}})
				if err != nil {
					t.Fatal(err)
				}
				want := sizes.Block(part, head)
				if got := b.Resident() - int64(len(b.memory)); got != want {
					t.Errorf("%s, layers %v, head %v: %d bytes of weights, measured %d", name, part, head, got, want)
				}
				if got, limit := int64(len(b.memory)), sizes.Scratch(9, 2); got > limit || got == 0 {
					t.Errorf("%s, layers %v: %d bytes of scratch, measured %d", name, part, got, limit)
				}
				if total > want || total < want*9/10 || last < total*99/100 {
					t.Errorf("%s, layers %v: progress ended at %d of %d, there are %d bytes", name, part, last, total, want)
				}
				b.Close()
			}
		}
		if sizes.Embedding != int64(len(x.tensors[0].Data)) || sizes.Norm != 64*4 || sizes.Head < sizes.Embedding/2 || sizes.Loading <= 0 {
			t.Errorf("%s: %+v", name, sizes)
		}
		if got, want := g.cfg.CacheBytes(kvcache.F16), int64(2*2*g.cfg.KVHeads*g.cfg.HeadDim); got != want {
			t.Errorf("%s: %d bytes of cache for a position, want %d", name, got, want)
		}
	}
}

// TestCloseEndsWorkers: a block's goroutines end with it, and closing twice does nothing.
func TestCloseEndsWorkers(t *testing.T) {
	g := openGolden(t, "llama")
	before := runtime.NumGoroutine()
	b, err := LoadBlock(t.Context(), g.file, g.cfg, Layers{0, 4}, Options{Threads: 8})
	if err != nil {
		t.Fatal(err)
	}
	if during := runtime.NumGoroutine(); during != before+7 {
		t.Errorf("8 threads: %d goroutines more, want 7", during-before)
	}
	b.Close()
	b.Close()
	for range 1000 { // a goroutine that has told its end may still be counted for a moment
		if runtime.NumGoroutine() == before {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d goroutines are left", runtime.NumGoroutine()-before)
}

// TestAngles compares frequencies with the formulas of the paper and of its reference implementation.
func TestAngles(t *testing.T) {
	const dims, base, factor, context = 64, 10000.0, 8.0, 4096
	rope := Rope{Dims: dims}
	plainly := func(i int) float64 { return math.Pow(base, -2*float64(i)/dims) }
	close := func(what string, got frequencies, want func(i int) float64) {
		t.Helper()
		for i, angle := range got.perPosition {
			if math.Abs(angle/want(i)-1) > 1e-12 {
				t.Errorf("%s: pair %d turns by %v, want %v", what, i, angle, want(i))
			}
		}
	}
	close("plain", rope.frequencies(base, nil, RopeScaling{Magnitude: 1}), plainly)
	close("linear", rope.frequencies(base, nil, RopeScaling{Kind: LinearScaling, Factor: factor}), func(i int) float64 { return plainly(i) / factor })
	factors := make([]float32, dims/2)
	for i := range factors {
		factors[i] = float32(i + 1)
	}
	close("factors", rope.frequencies(base, factors, RopeScaling{}), func(i int) float64 { return plainly(i) / float64(i+1) })

	for _, beta := range [][2]float64{{32, 1}, {64, 2}, {1e6, 1e-3}, {3, 3}} {
		s := RopeScaling{Kind: YarnScaling, Factor: factor, OriginalContext: context, BetaFast: beta[0], BetaSlow: beta[1]}
		pairOf := func(turns float64) float64 {
			return dims * math.Log(context/(turns*2*math.Pi)) / (2 * math.Log(base))
		}
		low, high := max(math.Floor(pairOf(beta[0])), 0), min(math.Ceil(pairOf(beta[1])), dims-1)
		close("yarn", rope.frequencies(base, nil, s), func(i int) float64 {
			ramp := min(max((float64(i)-low)/max(high-low, 0.001), 0), 1)
			return plainly(i)/factor*ramp + plainly(i)*(1-ramp)
		})
	}

	cos, sin := make([]float32, dims/2), make([]float32, dims/2)
	f := rope.frequencies(base, nil, RopeScaling{Magnitude: 1.5})
	for _, position := range []ids.Position{0, 1, 1000, MaxContext} {
		f.at(cos, sin, position)
		for i, angle := range f.perPosition {
			s, c := math.Sincos(float64(position) * angle)
			if math.Abs(float64(cos[i])-1.5*c) > 2e-7 || math.Abs(float64(sin[i])-1.5*s) > 2e-7 {
				t.Errorf("position %d, pair %d: %v, %v; want %v, %v", position, i, cos[i], sin[i], 1.5*c, 1.5*s)
			}
		}
	}
}

// TestSlidingLayersHaveTheirOwnAngles: with another base, and without the scaling of the others where that is so.
func TestSlidingLayersHaveTheirOwnAngles(t *testing.T) {
	g := openGolden(t, "olmo3")
	x := fixtureOf(t, g).set("rope.freq_base_swa", float32(1000)).set("rope.scaling.type", "yarn").set("rope.scaling.factor", float32(4)).
		set("rope.scaling.original_context_length", uint32(64))
	g.file = x.parse(t)
	var err error
	if g.cfg, err = ReadConfig(g.file); err != nil {
		t.Fatal(err)
	}
	a, err := newAngles(g.file, g.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if a.same || a.sliding.magnitude != 1 || a.full.magnitude <= 1 || math.Abs(a.sliding.perPosition[1]-math.Pow(1000, -1./8)) > 1e-12 {
		t.Errorf("sliding layers turn by %+v, the others by %+v", a.sliding, a.full)
	}
	checkOneAnswer(t, g, kvcache.F16, g.Prompts["short"].TokenIDs)
}

// TestNoTranscendentalsOfMath: they give other bits on other architectures; this package's promise needs its own.
func TestNoTranscendentalsOfMath(t *testing.T) {
	allowed := map[string]bool{}
	for _, name := range strings.Fields(`Float32bits Float32frombits Float64bits Float64frombits FMA Sqrt RoundToEven Floor Ceil Trunc
		Abs Copysign Inf NaN IsNaN IsInf Pi MaxFloat32 MaxFloat64 Sqrt2 Ln2 MaxInt MaxInt8 MaxInt16 MaxInt32 MaxInt64 MaxUint8 MaxUint16 MaxUint32 MaxUint64`) {
		allowed[name] = true
	}
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == "gen" || d.Name() == "testdata" {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		tree, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "math" && !allowed[s.Sel.Name] {
					t.Errorf("%s uses math.%s", path, s.Sel.Name)
				}
			}
			return true
		})
		return nil
	})
	if err != nil || files < 20 {
		t.Fatalf("read %d files: %v", files, err)
	}
}
