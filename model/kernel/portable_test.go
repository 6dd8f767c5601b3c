package kernel

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoForeignTranscendentals keeps package math's approximations out of everything under model: they give other bits on
// other architectures. What is exact, or correctly rounded, may stay.
func TestNoForeignTranscendentals(t *testing.T) {
	banned := map[string]bool{}
	for _, name := range strings.Fields(`Acos Acosh Asin Asinh Atan Atan2 Atanh Cbrt Cos Cosh Erf Erfc Erfcinv Erfinv Exp Exp2 Expm1
		Gamma Hypot J0 J1 Jn Lgamma Log Log10 Log1p Log2 Pow Pow10 Sin Sincos Sinh Tan Tanh Y0 Y1 Yn`) {
		banned[name] = true
	}
	seen := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		seen++
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		local := "" // what the file calls package math
		for _, i := range file.Imports {
			switch i.Path.Value {
			case `"math"`:
				local = "math"
				if i.Name != nil {
					local = i.Name.Name
				}
			case `"math/cmplx"`:
				t.Errorf("%s imports math/cmplx", path)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && local != "" {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == local && banned[s.Sel.Name] {
					t.Errorf("%s: math.%s gives other bits elsewhere; package kernel has its own", files.Position(n.Pos()), s.Sel.Name)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 10 {
		t.Errorf("looked at %d files", seen)
	}
}
