//go:build linux

package e2e

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const golden = "../model/testdata/golden/llama/model.gguf"

// A start that cannot succeed says why in one line, and leaves nothing.
func TestBadStarts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	broken := filepath.Join(t.TempDir(), "broken.gguf")
	whole, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(broken, whole[:len(whole)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		says []string
	}{
		"port taken by up":          {[]string{"up", "--listen", address}, []string{address, "in use"}},
		"port taken by run":         {[]string{"run", "--listen", address, "hi"}, []string{address, "in use"}},
		"port taken by coordinator": {[]string{"coordinator", "--listen", address}, []string{address, "in use"}},
		"not loopback":              {[]string{"up", "--listen", "0.0.0.0:0"}, []string{"--insecure"}},
		"shard not loopback":        {[]string{"shard", "--join", address, "--listen", "0.0.0.0:0"}, []string{"--insecure"}},
		"too little memory":         {[]string{"up", "--listen", "127.0.0.1:0", "--memory", "8MiB"}, []string{"not enough memory", "missing"}},
		"no such file":              {[]string{"up", "--model", "no/such.gguf"}, []string{"no/such.gguf"}},
		"no such model":             {[]string{"run", "--model", "no-such-model", "hi"}, []string{"no-such-model"}},
		"half a file":               {[]string{"run", "--model", broken, "hi"}, []string{"broken"}},
		"too long a context":        {[]string{"run", "--model", golden, "--context", "1000000", "hi"}, []string{"1000000"}},
	} {
		t.Run(name, func(t *testing.T) {
			line := fails(t, test.args...)
			for _, word := range test.says {
				if !strings.Contains(line, word) {
					t.Errorf("%q does not say %q", line, word)
				}
			}
		})
	}
}

// A source that gives other bytes than it should gives way to the next, and at last it is said what was wrong.
func TestWrongHash(t *testing.T) {
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write(append([]byte("GGUF"), bytes.Repeat([]byte{1}, 1000)...))
	}))
	defer hub.Close()
	p := newProcess(t, "run", "hi")
	p.cmd.Env = append(p.cmd.Env, "DAISY_CACHE_DIR="+t.TempDir(), "HF_ENDPOINT="+hub.URL, "PATH=") // and no pip
	p.run(t)
	if code := p.finish(t); code == 0 {
		t.Error("it did not fail")
	}
	if text := p.stderr.String(); !strings.Contains(text, "smollm2") && !strings.Contains(text, "SmolLM2") || p.stdout.String() != "" {
		t.Errorf("stdout %q, stderr %q", p.stdout, text)
	}
}

func TestWrongHashLeavesNoModel(t *testing.T) {
	cache := t.TempDir()
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, golden)
	}))
	defer hub.Close()
	p := newProcess(t, "pull", "smollm2")
	p.cmd.Env = append(p.cmd.Env, "DAISY_CACHE_DIR="+cache, "HF_ENDPOINT="+hub.URL, "PATH=")
	p.run(t)
	if code := p.finish(t); code == 0 {
		t.Error("it did not fail")
	}
	models, err := filepath.Glob(filepath.Join(cache, "models", "*.gguf"))
	if err != nil || len(models) != 0 {
		t.Errorf("kept %v (%v)", models, err)
	}
}
