package daisy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Go may compute x*y + z with one rounding or with two, as the architecture has it: on arm64 it fuses, on amd64 not. Where
// bits are promised the choice is written out: math.FMA for one rounding, float32(x*y) + z for two. (An assignment rounds
// as well.)
func TestRoundingIsWrittenOut(t *testing.T) {
	for _, tags := range []string{"", "purego"} {
		exports, packages := compiled(t, tags)
		checked := 0
		for _, p := range packages {
			set := token.NewFileSet()
			var files []*ast.File
			for _, name := range p.GoFiles {
				file, err := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, file)
			}
			imports := importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
			breaches, err := unrounded(set, p.ImportPath, files, imports)
			if err != nil {
				t.Fatalf("%s: %v", p.ImportPath, err)
			}
			for _, breach := range breaches {
				t.Error(breach)
			}
			checked += len(files)
		}
		if checked < 10 {
			t.Fatalf("tags %q: %d files under model: the rule would hold for nothing", tags, checked)
		}
	}
}

// unrounded finds the float products that are an operand of + or - just as they are.
func unrounded(set *token.FileSet, path string, files []*ast.File, imports types.Importer) (breaches []string, err error) {
	info := types.Info{Types: make(map[ast.Expr]types.TypeAndValue)}
	config := types.Config{Importer: imports}
	if _, err := config.Check(path, set, files, &info); err != nil {
		return nil, err
	}
	product := func(e ast.Expr) bool {
		b, ok := unwrap(e).(*ast.BinaryExpr)
		if !ok || b.Op != token.MUL || info.Types[b].Value != nil {
			return false
		}
		basic, ok := info.TypeOf(b).Underlying().(*types.Basic)
		return ok && basic.Info()&(types.IsFloat|types.IsComplex) != 0
	}
	report := func(e ast.Expr) {
		if product(e) {
			at := set.Position(e.Pos())
			breaches = append(breaches, fmt.Sprintf("%s/%s:%d: a product goes into a sum unrounded: write math.FMA, or convert the product", relative(path), filepath.Base(at.Filename), at.Line))
		}
	}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BinaryExpr:
				if n.Op == token.ADD || n.Op == token.SUB {
					report(n.X)
					report(n.Y)
				}
			case *ast.AssignStmt:
				if n.Tok == token.ADD_ASSIGN || n.Tok == token.SUB_ASSIGN {
					report(n.Rhs[0])
				}
			}
			return true
		})
	}
	return breaches, nil
}

// unwrap takes off parentheses and signs, which round nothing.
func unwrap(e ast.Expr) ast.Expr {
	for {
		switch wrapped := e.(type) {
		case *ast.ParenExpr:
			e = wrapped.X
		case *ast.UnaryExpr:
			e = wrapped.X
		default:
			return e
		}
	}
}

type compiledPackage struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

// compiled has the packages under model compiled, and says where the compiler left what each of their imports exports.
func compiled(t *testing.T, tags string) (exports map[string]string, packages []compiledPackage) {
	t.Helper()
	command := exec.Command("go", "list", "-tags", tags, "-deps", "-export", "-json=ImportPath,Dir,Export,GoFiles", "./model/...")
	command.Env = append(command.Environ(), "CGO_ENABLED=0")
	var out, complaints bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaints
	if err := command.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, &complaints)
	}
	exports = make(map[string]string)
	for decoder := json.NewDecoder(&out); ; {
		var p compiledPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return exports, packages
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if within(p.ImportPath, module+"/model") {
			packages = append(packages, p)
		}
	}
}

func TestRoundingRuleBites(t *testing.T) {
	tests := []struct {
		expression string
		found      bool
	}{
		{"a*b + c", true},
		{"c - (a * b)", true},
		{"c + -(a * b)", true},
		{"a*b*c + a", true},
		{"d*d + 1", true},
		{"float32(a*b) + c", false},
		{"(a + b) * c", false},
		{"a / b + c", false},
		{"float32(i*i + i)", false},
		{"2*3.5 + c", false}, // constants are exact
		{"n*n + n", true},    // a type of one's own is still a float
	}
	for _, test := range tests {
		set := token.NewFileSet()
		text := "package p\ntype number float32\nfunc f(a, b, c float32, d float64, i int, n number) any { return " + test.expression + " }"
		file, err := parser.ParseFile(set, "p.go", text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		breaches, err := unrounded(set, "p", []*ast.File{file}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if (len(breaches) > 0) != test.found {
			t.Errorf("%s: %q", test.expression, strings.Join(breaches, "\n"))
		}
	}

	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "p.go", "package p\nfunc f(a, b float32) float32 { a += a * b; t := a * b; a -= t; return a }", parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if breaches, err := unrounded(set, "p", []*ast.File{file}, nil); err != nil || len(breaches) != 1 {
		t.Errorf("found %q, %v, want the first += alone", breaches, err)
	}
}
