package catalogue

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestDefault(t *testing.T) {
	list := Default().Models()
	if len(list) < 2 || list[0].Name != "smollm2" {
		t.Fatalf("models %+v", list)
	}
	for _, m := range list {
		hub, err := parseSource(m.Sources[0])
		if err != nil {
			t.Fatal(err)
		}
		pip, err := parseSource(m.Sources[1])
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := hub.(hubSource); !ok {
			t.Errorf("%s: the first source is %s", m.Name, hub)
		}
		if _, ok := pip.(pipSource); !ok {
			t.Errorf("%s: the second source is %s", m.Name, pip)
		}
		if m.Title == "" || m.License == "" {
			t.Errorf("%s lacks a title or licence", m.Name)
		}
	}
	for _, name := range []string{"gemma3", "GEMMA-3-270m"} {
		m, err := Default().Find(name)
		if err != nil {
			t.Fatal(err)
		}
		pip, _ := parseSource(m.Sources[1])
		if m.Name != "gemma3" || len(pip.(pipSource)) != 4 || !strings.Contains(m.Note, "Gemma Terms of Use") {
			t.Errorf("%s is %+v", name, m)
		}
	}
	_, err := Default().Find("gpt5")
	if !errors.Is(err, ErrUnknownModel) || !strings.Contains(err.Error(), "smollm2, gemma3") || !strings.Contains(err.Error(), `"gpt5"`) {
		t.Errorf("an unknown model: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	const hash = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
	entry := func(name, alias, sum string, size int, license, source string) string {
		return fmt.Sprintf(`{"name":%q,"aliases":[%q],"sha256":%q,"size":%d,"license":%q,"sources":[%q]}`, name, alias, sum, size, license, source)
	}
	good := entry("a", "b", hash, 1, "MIT", "hf:o/r@v/f.gguf")
	if _, err := Parse([]byte("[" + good + "]")); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"not JSON":     "[",
		"no name":      "[" + entry("", "b", hash, 1, "MIT", "hf:o/r/f") + "]",
		"no hash":      "[" + entry("a", "b", "", 1, "MIT", "hf:o/r/f") + "]",
		"bad hash":     "[" + entry("a", "b", strings.ToUpper(hash), 1, "MIT", "hf:o/r/f") + "]",
		"no size":      "[" + entry("a", "b", hash, 0, "MIT", "hf:o/r/f") + "]",
		"no licence":   "[" + entry("a", "b", hash, 1, "", "hf:o/r/f") + "]",
		"bad source":   "[" + entry("a", "b", hash, 1, "MIT", "ftp:o/r/f") + "]",
		"no sources":   `[{"name":"a","sha256":"` + hash + `","size":1,"license":"MIT"}]`,
		"path as name": "[" + entry("a/b", "b", hash, 1, "MIT", "hf:o/r/f") + "]",
		"upper case":   "[" + entry("A", "b", hash, 1, "MIT", "hf:o/r/f") + "]",
		"alias twice":  "[" + entry("a", "a", hash, 1, "MIT", "hf:o/r/f") + "]",
		"model twice":  "[" + good + "," + good + "]",
	} {
		if _, err := Parse([]byte(data)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSources(t *testing.T) {
	for text, want := range map[string]struct{ full, name string }{
		"hf:org/repo@v1.0/file.gguf":           {"hf:org/repo@v1.0/file.gguf", "file"},
		"hf:org/repo/sub/Some File.GGUF":       {"hf:org/repo@main/sub/Some File.GGUF", "Some File"},
		"https://host:1/a/b.gguf?x=1/y":        {"https://host:1/a/b.gguf?x=1/y", "b"},
		"http://127.0.0.1/b.gguf":              {"http://127.0.0.1/b.gguf", "b"},
		"http://[::1]:80/b":                    {"http://[::1]:80/b", "b"},
		"pip:a-b==1.0.post1/c/d.gguf":          {"pip:a-b==1.0.post1/c/d.gguf", "d"},
		"pip:a==1/x.part0, b==2!3+local/y.pt1": {"pip:a==1/x.part0,b==2!3+local/y.pt1", "x.part0"},
	} {
		s, err := parseSource(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if s.String() != want.full || s.name() != want.name {
			t.Errorf("%s: %s called %s", text, s, s.name())
		}
	}
	for _, text := range []string{
		"", "x", "hf:", "hf:a/b", "hf:a/b@/c", "hf:a/b@v/", "hf:/b@v/c", "hf:a/b@v/../../c", "hf:a/b@v//c", "hf:../b@v/c", "hf:-a/b/c",
		"pip:", "pip:a/x", "pip:a==/x", "pip:==1/x", "pip:a==1", "pip:a==1/", "pip:a==1/../x", "pip:-r==1/x", "pip:--index-url=x==1/x",
		"pip:a==1/x,", "pip:a b==1/x", "pip:a==1;os_name/x", "pip:a @ https://h==1/x", "https:", "https://", "https://host", "https:///x",
		"http://example.com/x.gguf", "http://127.0.0.1.example.com/x", "ftp://h/x", "https://h\x00/x",
	} {
		if s, err := parseSource(text); err == nil {
			t.Errorf("%q: no error, but %s", text, s)
		}
	}
}

func FuzzSource(f *testing.F) {
	f.Add("hf:org/repo@v1/dir/file.gguf")
	f.Add("https://host/file.gguf")
	for _, m := range Default().Models() {
		f.Add(m.Sources[1])
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSource(text)
		if err != nil {
			return
		}
		again, err := parseSource(s.String())
		if err != nil || again.String() != s.String() {
			t.Errorf("%q became %q, then %v, %v", text, s, again, err)
		}
		if parts, ok := s.(pipSource); ok {
			for _, part := range parts {
				if strings.HasPrefix(part.name, "-") || strings.ContainsAny(part.name+part.version, " \t/=;@") {
					t.Errorf("pip would misread %+v", part)
				}
			}
		}
	})
}

func TestConfigRefuses(t *testing.T) {
	for _, c := range []Config{{}, {Dir: "x", HFEndpoint: "huggingface.co"}, {Dir: "x", HFEndpoint: "ftp://h"}} {
		if _, err := New(c, Catalogue{}); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
}

func TestResolveFile(t *testing.T) {
	data := content(1000)
	s := newStore(t, Config{}, data, "https://localhost:1/x.gguf")
	dir := t.TempDir()
	path := write(t, dir+"/My-Model.GGUF", data)
	if local := mustResolve(t, s, path, nil, data); local.Name != "My-Model" || local.Path != path {
		t.Errorf("resolved to %+v", local)
	}
	t.Chdir(dir)
	mustResolve(t, s, "My-Model.GGUF", nil, data)
	write(t, dir+"/plain", data)
	if local := mustResolve(t, s, "plain", nil, data); local.Name != "plain" {
		t.Errorf("resolved to %+v", local)
	}

	if err := mustFail(t, s, dir+"/missing.gguf", nil, "missing.gguf"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	mustFail(t, s, dir, nil, dir, "directory")
	mustFail(t, s, os.DevNull, nil, "regular")
	if err := mustFail(t, s, "other", nil, `"other"`, "the catalogue has m"); !errors.Is(err, ErrUnknownModel) {
		t.Errorf("an unknown name: %v", err)
	}
	mustFail(t, s, "pip:x", nil, "pip:x", "package==version")
	if _, ok := s.Has(sumOf(data)); ok {
		t.Error("a file elsewhere counts as cached")
	}
	for _, sum := range []string{"", "../../etc/passwd", strings.Repeat("A", 64), strings.Repeat("/", 64)} {
		if path, ok := s.Has(sum); ok {
			t.Errorf("has %q at %s", sum, path)
		}
	}
}
