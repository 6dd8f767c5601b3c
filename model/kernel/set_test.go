package kernel

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestSets(t *testing.T) {
	sets := Sets()
	if sets[0].Name != "reference" {
		t.Errorf("the first set is %s", sets[0].Name)
	}
	for _, s := range sets {
		if s.width < 1 || s.width > maxWidth {
			t.Errorf("%s: panels of %d tokens", s.Name, s.width)
		}
		found, err := Lookup(s.Name)
		if err != nil || found.isa != s.isa {
			t.Errorf("Lookup(%s) gives %v, %v", s.Name, found, err)
		}
	}
	if best := Best(); best.Name != sets[len(sets)-1].Name {
		t.Errorf("the best set is %s", best.Name)
	}
	_, err := Lookup("sse9")
	if err == nil || !strings.Contains(err.Error(), "sse9") || !strings.Contains(err.Error(), "reference") {
		t.Errorf("an unknown set gives %v", err)
	}
}

// TestGeneratedFilesAreCurrent runs the generator and compares.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	dir := t.TempDir()
	generator := filepath.Join(dir, "gen.exe")
	if out, err := exec.Command("go", "build", "-o", generator, "./gen").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := exec.Command(generator)
	run.Dir = dir
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Remove(generator); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	generated := map[string]bool{}
	for _, e := range fresh {
		generated[e.Name()] = true
		want, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(e.Name())
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what gen writes: run go generate", e.Name())
		}
	}
	assembly, err := filepath.Glob("*.s")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range assembly {
		if !generated[name] {
			t.Errorf("%s is not from the generator", name)
		}
	}
}
