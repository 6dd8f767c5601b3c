// Package daisy_test holds the rules of the design that no compiler checks: which way imports point (this file), how the
// source reads (source_test.go, rounding_test.go), and that what the documents call exists (documents_linux_test.go). Each
// rule is itself tested, on code that breaks it.
package daisy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/daisy-llm/daisy"

// pkg is what `go list` says of a package, without its tests. Paths inside the module are relative to it.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string // all that it needs, directly or not
	Module     *struct{ Path string }
	Error      *struct{ Err string }
}

// group is a part of the layout, and the parts that it may import.
type group struct {
	name    string
	imports []string
}

// Imports point one way: cmd -> services -> {coordinator, shard} -> model, with the words of pass between the last two.
var groups = []group{
	{"model", []string{"model"}},
	{"pass", []string{"model"}},
	{"shard", []string{"shard", "pass", "model"}},
	{"coordinator", []string{"coordinator", "pass", "model"}},
	{"proto", nil},
	{"services/rpc", []string{"services/rpc", "proto", "coordinator", "shard", "pass", "model"}},
	{"services", []string{"services", "coordinator", "shard", "pass", "model"}},
	{"cmd", []string{"cmd", "services", "services/rpc", "coordinator", "shard", "pass", "model"}},
	{"deploy", []string{"deploy"}}, // knows Daisy from outside
	{"e2e", nil},                   // tests of the binary, from outside
	{"tools", nil},                 // for those who develop Daisy; they run the binary
}

// keep says that a library stays where it belongs.
type keep struct {
	library string   // an import path, and all below it
	in      []string // the packages that may import it
	why     string
}

var keeps = []keep{
	{"google.golang.org/protobuf", []string{"proto", "services/rpc"}, "the data plane has one translator"},
	{"google.golang.org/grpc", []string{"proto", "services", "cmd"}, "coordinators, shards and models have no sockets"},
	{"net/http", []string{"services", "cmd", "deploy"}, "coordinators, shards and models have no sockets"},
	{"os/exec", []string{"services", "cmd", "deploy", "tools"}, "only what faces the user starts processes"},
	{"github.com/hashicorp/memberlist", []string{"services/cluster"}, "everyone else sees rosters"},
	{"go.opentelemetry.io/otel/sdk", []string{"services/telemetry"}, "everyone else speaks the API"},
	{"go.opentelemetry.io/otel/exporters", []string{"services/telemetry"}, "everyone else speaks the API"},
	{"go.opentelemetry.io/contrib", []string{"services"}, "instrumentation is for sockets"},
	{"go.opentelemetry.io/otel", []string{"shard", "coordinator", "services", "cmd"}, "a model does not know that it is watched"},
	{"github.com/vishvananda", []string{"deploy/lab"}, "only the lab changes networks"},
	{"github.com/spf13", []string{"cmd", "deploy"}, "flags become fields of a Config"},
}

// What must not be reached even through others: a model that opens a connection inside some library still opens one.
var unreachable = []keep{
	{"net", []string{"proto", "shard", "coordinator", "services", "cmd", "deploy"}, "a model has no sockets"},
	{"go.opentelemetry.io", []string{"shard", "coordinator", "services", "cmd"}, "a model does not know that it is watched"},
	{"google.golang.org/grpc", []string{"proto", "services", "cmd"}, "coordinators and shards have no sockets"},
	{"google.golang.org/protobuf", []string{"proto", "services", "cmd"}, "the data plane has one translator"},
}

func TestImports(t *testing.T) {
	packages := list(t)
	if len(packages) < 10 {
		t.Fatalf("go list finds %d packages: the rules would hold for nothing", len(packages))
	}
	for _, breach := range importBreaches(packages) {
		t.Error(breach)
	}
}

func importBreaches(packages []pkg) (breaches []string) {
	for _, p := range packages {
		home := groupOf(p.ImportPath)
		if home == nil {
			breaches = append(breaches, fmt.Sprintf("%s has no place in the layout: see groups in arch_test.go", p.ImportPath))
			continue
		}
		for _, imported := range p.Imports {
			if within(imported, module) {
				if to := groupOf(relative(imported)); to == nil || !slices.Contains(home.imports, to.name) {
					breaches = append(breaches, fmt.Sprintf("%s imports %s: %s may import %q only", p.ImportPath, relative(imported), home.name, home.imports))
				}
			}
			breaches = append(breaches, outOfPlace(p.ImportPath, "imports", imported, keeps)...)
		}
		for _, reached := range p.Deps {
			breaches = append(breaches, outOfPlace(p.ImportPath, "reaches", reached, unreachable)...)
		}
	}
	return breaches
}

// outOfPlace holds a package's import against the rule that names it most closely.
func outOfPlace(importer, verb, imported string, rules []keep) []string {
	var closest *keep
	for i, rule := range rules {
		covers := within(imported, rule.library)
		if rule.library == "net" {
			covers = imported == "net" // net/netip and net/url are words, not sockets
		}
		if covers && (closest == nil || len(rule.library) > len(closest.library)) {
			closest = &rules[i]
		}
	}
	if closest == nil || slices.ContainsFunc(closest.in, func(path string) bool { return within(importer, path) }) {
		return nil
	}
	return []string{fmt.Sprintf("%s %s %s, which belongs in %q: %s", importer, verb, imported, closest.in, closest.why)}
}

// groupOf finds the part of the layout that a package, named relative to the module, is in.
func groupOf(path string) *group {
	var closest *group
	for i, g := range groups {
		if within(path, g.name) && (closest == nil || len(g.name) > len(closest.name)) {
			closest = &groups[i]
		}
	}
	return closest
}

func within(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+"/")
}

func relative(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
}

// list describes the module's packages, those with code besides tests.
func list(t *testing.T) (packages []pkg) {
	t.Helper()
	for _, p := range goList(t, "./...") {
		if p.Error != nil {
			t.Fatalf("%s: %s", p.ImportPath, p.Error.Err)
		}
		if p.ImportPath == module {
			continue // the root holds these tests and nothing else
		}
		p.ImportPath = relative(p.ImportPath)
		packages = append(packages, p)
	}
	return packages
}

func goList(t *testing.T, args ...string) (packages []pkg) {
	t.Helper()
	command := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps,Module,Error"}, args...)...)
	command.Env = append(command.Environ(), "CGO_ENABLED=0") // as Daisy is built
	var out, complaints bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaints
	if err := command.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, &complaints)
	}
	for decoder := json.NewDecoder(&out); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestImportRulesBite(t *testing.T) {
	const otel = "go.opentelemetry.io/otel"
	tests := []struct {
		path             string
		imports, reaches string // one of each
		breach           string // a part of what is said, or nothing
	}{
		{path: "model/kernel", imports: module + "/model/token"},
		{path: "model/kernel", imports: module + "/pass", breach: "may import"},
		{path: "pass", imports: module + "/model/sample"},
		{path: "pass", imports: module + "/shard", breach: "may import"},
		{path: "shard", imports: module + "/pass"},
		{path: "shard", imports: module + "/coordinator", breach: "may import"},
		{path: "coordinator/plan", imports: module + "/shard", breach: "may import"},
		{path: "coordinator/plan", imports: module + "/services/rpc", breach: "may import"},
		{path: "coordinator/plan", imports: module + "/proto/daisy/v1", breach: "may import"},
		{path: "services/rpc", imports: module + "/proto/daisy/v1"},
		{path: "services/gateway", imports: module + "/proto/daisy/v1", breach: "may import"},
		{path: "services/gateway", imports: module + "/cmd/daisy", breach: "may import"},
		{path: "services/gateway", imports: module + "/services/rpc", breach: "may import"},
		{path: "cmd/daisy", imports: module + "/services/rpc"},
		{path: "cmd/daisy", imports: module + "/proto/daisy/v1", breach: "may import"},
		{path: "modelling", breach: "no place"},
		{path: "shard", imports: "net/netip"},
		{path: "coordinator", imports: "net/http", breach: "no sockets"},
		{path: "coordinator", imports: "os/exec", breach: "starts processes"},
		{path: "coordinator", imports: "google.golang.org/grpc/codes", breach: "no sockets"},
		{path: "coordinator", reaches: "google.golang.org/grpc", breach: "no sockets"},
		{path: "services/gateway", imports: "google.golang.org/protobuf/proto", breach: "one translator"},
		{path: "services/gateway", imports: "github.com/hashicorp/memberlist", breach: "rosters"},
		{path: "services/cluster", imports: "github.com/hashicorp/memberlist"},
		{path: "services/rpc", imports: otel + "/sdk/trace", breach: "speaks the API"},
		{path: "services/telemetry", imports: otel + "/sdk/trace"},
		{path: "services/rpc", imports: otel + "/trace"},
		{path: "shard", imports: otel},
		{path: "model", imports: otel, breach: "watched"},
		{path: "model", reaches: otel + "/trace", breach: "watched"},
		{path: "model/tokenizer", reaches: "net", breach: "no sockets"},
		{path: "services/rpc", imports: "github.com/spf13/cobra", breach: "flags"},
		{path: "deploy/lab", imports: module + "/deploy/lab/wire"},
		{path: "deploy/lab", imports: module + "/services/cluster", breach: "may import"},
		{path: "services/cluster", imports: "github.com/vishvananda/netlink", breach: "changes networks"},
	}
	for _, test := range tests {
		p := pkg{ImportPath: test.path}
		if test.imports != "" {
			p.Imports = []string{test.imports}
		}
		if test.reaches != "" {
			p.Deps = []string{test.reaches}
		}
		got := strings.Join(importBreaches([]pkg{p}), "\n")
		if (got == "") != (test.breach == "") || !strings.Contains(got, test.breach) {
			t.Errorf("%+v: got %q", test, got)
		}
	}
}
