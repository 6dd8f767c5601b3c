package daisy_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// source is one Go file of the module.
type source struct {
	path string // relative to the module, with slashes
	text []byte
	set  *token.FileSet
	file *ast.File
}

func (s source) test() bool      { return strings.HasSuffix(s.path, "_test.go") }
func (s source) generated() bool { return ast.IsGenerated(s.file) }

func (s source) breach(at token.Pos, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", s.path, s.set.Position(at).Line, fmt.Sprintf(format, args...))
}

// sourceRules are the rules that one file can break by itself.
var sourceRules = []func(source) []string{
	environmentInCmdOnly,
	noSockets,
	ownTranscendentals,
	noInit,
	noCgo,
	speakingPackageName,
	skipsSayWhy,
	nothingLeftToDo,
	oneConcept,
	constructorsStartNothing,
}

func TestSources(t *testing.T) {
	sources := readSources(t)
	if len(sources) < 50 {
		t.Fatalf("%d files found: the rules would hold for nothing", len(sources))
	}
	for _, s := range sources {
		for _, rule := range sourceRules {
			for _, breach := range rule(s) {
				t.Error(breach)
			}
		}
	}
	for _, breach := range undocumented(sources) {
		t.Error(breach)
	}
}

// environmentInCmdOnly: what a process does follows from its flags and Configs, which cmd/daisy fills.
func environmentInCmdOnly(s source) (breaches []string) {
	if within(s.path, "cmd/daisy") || s.test() {
		return nil
	}
	banned := []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv", "Setenv", "Unsetenv", "Clearenv", "."}
	for _, name := range []string{"os", "syscall"} {
		s.uses(name, func(at token.Pos, what string) {
			if slices.Contains(banned, what) {
				breaches = append(breaches, s.breach(at, "%s.%s: the environment is read in cmd/daisy alone", name, what))
			}
		})
	}
	return breaches
}

// noSockets: coordinators, shards and models are tested without any. Taking an address apart is no socket.
func noSockets(s source) (breaches []string) {
	if within(s.path, "services") || within(s.path, "cmd") || within(s.path, "deploy") || s.test() {
		return nil
	}
	s.uses("net", func(at token.Pos, what string) {
		if what != "SplitHostPort" && what != "JoinHostPort" {
			breaches = append(breaches, s.breach(at, "net.%s: only services, cmd and deploy have sockets", what))
		}
	})
	return breaches
}

// ownTranscendentals: package math gives other bits on other architectures, except where a function is exact.
func ownTranscendentals(s source) (breaches []string) {
	if !within(s.path, "model") || s.test() {
		return nil
	}
	exact := []string{
		"Abs", "Ceil", "Copysign", "FMA", "Floor", "Frexp", "Inf", "IsInf", "IsNaN", "Ldexp", "Max", "Min", "Mod", "Modf", "NaN",
		"Nextafter", "Nextafter32", "Remainder", "Round", "RoundToEven", "Signbit", "Sqrt", "Trunc",
		"Float32bits", "Float32frombits", "Float64bits", "Float64frombits",
		"MaxFloat32", "MaxFloat64", "SmallestNonzeroFloat32", "SmallestNonzeroFloat64", "Pi", "E", "Ln2", "Log2E", "Ln10", "Log10E", "Sqrt2",
	}
	s.uses("math", func(at token.Pos, what string) {
		integer := strings.HasPrefix(what, "MaxInt") || strings.HasPrefix(what, "MinInt") || strings.HasPrefix(what, "MaxUint")
		if !integer && !slices.Contains(exact, what) {
			breaches = append(breaches, s.breach(at, "math.%s is not the same on every machine: write it out in model/kernel", what))
		}
	})
	for _, other := range []string{"math/rand", "math/rand/v2", "math/cmplx"} {
		if at, imported := s.imports(other); imported {
			breaches = append(breaches, s.breach(at, "%s has no place where answers must be reproducible", other))
		}
	}
	return breaches
}

// noInit: nothing happens because a package was imported.
func noInit(s source) (breaches []string) {
	if s.generated() {
		return nil
	}
	for _, declaration := range s.file.Decls {
		if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			breaches = append(breaches, s.breach(f.Pos(), "func init: let the caller call"))
		}
	}
	return breaches
}

// noCgo: Daisy is one static binary.
func noCgo(s source) []string {
	if at, imported := s.imports("C"); imported {
		return []string{s.breach(at, "cgo: Daisy is one static binary")}
	}
	return nil
}

// speakingPackageName: a helper lives beside its caller.
func speakingPackageName(s source) []string {
	name := strings.TrimSuffix(s.file.Name.Name, "_test")
	for _, mute := range []string{"util", "utils", "common", "helper", "helpers", "types", "manager", "managers", "misc", "base", "shared"} {
		if name == mute || path.Base(path.Dir(s.path)) == mute {
			return []string{s.breach(s.file.Name.Pos(), "a package called %s says nothing of what it owns", mute)}
		}
	}
	return nil
}

// skipsSayWhy: a test is left out only where the machine cannot run it, and then says what is missing. (A benchmark may want
// something to measure.)
func skipsSayWhy(s source) (breaches []string) {
	if !s.test() {
		return nil
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		called, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, called.Sel.Name) {
			return true
		}
		if receiver, ok := called.X.(*ast.Ident); !ok || !slices.Contains([]string{"t", "f", "tb"}, receiver.Name) {
			return true
		}
		var reason string
		if len(call.Args) > 0 {
			if literal, ok := call.Args[0].(*ast.BasicLit); ok {
				reason, _ = strconv.Unquote(literal.Value)
			}
		}
		if !strings.HasPrefix(reason, "this CPU") && !strings.HasPrefix(reason, "this system") {
			breaches = append(breaches, s.breach(call.Pos(), `a test is skipped only for what the machine lacks: t.Skip("this CPU has no ...") or t.Skip("this system has no ...")`))
		}
		return true
	})
	return breaches
}

// nothingLeftToDo: what is left out is an issue, not a comment.
func nothingLeftToDo(s source) (breaches []string) {
	if s.generated() {
		return nil
	}
	for _, group := range s.file.Comments {
		for _, comment := range group.List {
			for _, mark := range []string{"TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"} {
				if slices.Contains(strings.FieldsFunc(comment.Text, func(r rune) bool { return r < 'A' || r > 'Z' }), mark) {
					breaches = append(breaches, s.breach(comment.Pos(), "%s: do it, or file it", mark))
				}
			}
		}
	}
	return breaches
}

// oneConcept: a file that is much longer than 500 lines holds more than one.
func oneConcept(s source) []string {
	const limit = 650
	if lines := bytes.Count(s.text, []byte("\n")); lines > limit && !s.generated() {
		return []string{s.breach(s.file.Pos(), "%d lines: split it by concept near 500", lines)}
	}
	return nil
}

// constructorsStartNothing: Run(ctx) blocks, and its caller owns it.
func constructorsStartNothing(s source) (breaches []string) {
	if s.test() {
		return nil
	}
	for _, declaration := range s.file.Decls {
		f, ok := declaration.(*ast.FuncDecl)
		if !ok || f.Body == nil || !strings.HasPrefix(f.Name.Name, "New") {
			continue
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			if start, ok := n.(*ast.GoStmt); ok {
				breaches = append(breaches, s.breach(start.Pos(), "%s starts a goroutine: constructors start none", f.Name.Name))
			}
			return true
		})
	}
	return breaches
}

// undocumented finds packages that do not say what they own.
func undocumented(sources []source) (breaches []string) {
	documented := make(map[string]bool)
	for _, s := range sources {
		if !s.test() && !s.generated() {
			dir := path.Dir(s.path)
			documented[dir] = documented[dir] || s.file.Doc != nil
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(documented)) {
		if !documented[dir] {
			breaches = append(breaches, dir+" has no package comment: say what it owns, who calls it, its invariant, what it refuses")
		}
	}
	return breaches
}

// imports reports whether the file imports a package, and where.
func (s source) imports(importPath string) (at token.Pos, imported bool) {
	for _, spec := range s.file.Imports {
		if value, _ := strconv.Unquote(spec.Path.Value); value == importPath {
			return spec.Pos(), true
		}
	}
	return token.NoPos, false
}

// uses reports every use of a package of the standard library. An import with a dot is itself reported, as "."; it would
// hide the uses.
func (s source) uses(importPath string, report func(at token.Pos, what string)) {
	for _, spec := range s.file.Imports {
		if value, _ := strconv.Unquote(spec.Path.Value); value != importPath {
			continue
		}
		name := path.Base(importPath)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if name == "." {
			report(spec.Pos(), ".")
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if selector, ok := n.(*ast.SelectorExpr); ok {
				if ident, ok := selector.X.(*ast.Ident); ok && ident.Name == name {
					report(selector.Pos(), selector.Sel.Name)
				}
			}
			return true
		})
	}
}

// readSources parses the module's files for all platforms, without nested modules, which are tools.
func readSources(t *testing.T) (sources []source) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name == "." {
				return nil
			}
			if base := entry.Name(); base == "testdata" || base[0] == '.' || base[0] == '_' {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		s, err := parse(filepath.ToSlash(name), text)
		if err != nil {
			return err
		}
		sources = append(sources, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sources
}

func parse(name string, text []byte) (source, error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.ParseComments)
	return source{path: name, text: text, set: set, file: file}, err
}
