package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// processArgument makes the test binary one of the processes in child_test.go.
const processArgument = "-as-process"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == processArgument {
		os.Exit(asProcess(os.Args[2], os.Args[3:]))
	}
	goleak.VerifyTestMain(m)
}

// TestScripts runs the scripts below testdata/script against the real binary, as a user in a shell would.
func TestScripts(t *testing.T) {
	bin := t.TempDir()
	name := "daisy"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	build := exec.Command("go", "build", "-o", filepath.Join(bin, name), ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		t.Fatalf("build daisy: %v", err)
	}
	golden, err := filepath.Abs("../../model/testdata/golden/llama/model.gguf")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("DAISY_CACHE_DIR", filepath.Join(env.WorkDir, "cache"))
			env.Setenv("GOLDEN", golden)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"onelineerror": oneLineError,
		},
	})
}

// oneLineError: the command before failed, and said why on one line and nothing else.
func oneLineError(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: onelineerror")
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("stdout: %q", out)
	}
	var rest string
	text := ts.ReadFile("stderr")
	if n, _ := fmt.Sscanf(text, "daisy: %s", &rest); n != 1 || countLines(text) != 1 {
		ts.Fatalf("stderr is not one line that begins with daisy: %q", text)
	}
}

func countLines(s string) int {
	n := 0
	for _, r := range s {
		if r == '\n' {
			n++
		}
	}
	return n
}
