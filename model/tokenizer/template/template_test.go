package template

import (
	"bytes"
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daisy-llm/daisy/model/gguf"
)

func file(t testing.TB, metadata ...gguf.KeyValue) *gguf.File {
	t.Helper()
	var b bytes.Buffer
	if err := gguf.Write(&b, metadata, nil); err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Parse(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestNew(t *testing.T) {
	tpl, err := New(file(t,
		gguf.KeyValue{Key: "tokenizer.chat_template", Value: "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"},
		gguf.KeyValue{Key: "tokenizer.ggml.tokens", Value: []string{"<a>", "<b>"}},
		gguf.KeyValue{Key: "tokenizer.ggml.bos_token_id", Value: uint32(1)},
		gguf.KeyValue{Key: "tokenizer.ggml.eos_token_id", Value: uint32(7)},
	))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tpl.Render(json.RawMessage(`[{"role":"user","content":"hi"}]`), nil, false, nil); err != nil || got != "<b>hi" {
		t.Errorf("%q, %v", got, err)
	}
	for name, f := range map[string]*gguf.File{
		"none":  file(t),
		"blank": file(t, gguf.KeyValue{Key: "tokenizer.chat_template", Value: " \n"}),
	} {
		if _, err := New(f); !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(file(t, gguf.KeyValue{Key: "tokenizer.chat_template", Value: uint32(3)})); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("of another type: %v", err)
	}
}

func TestRefusedWhenCompiled(t *testing.T) {
	for source, says := range map[string]string{
		"{% include 'x' %}":                      `"include"`,
		"{% if x %}":                             "if",
		"a\n{% for x in y %}":                    "for",
		"{{ x":                                   "line 1: a tag does not end",
		"\n{{ 'x }}":                             "line 2: a string does not end",
		"{# x":                                   "comment",
		"{% raw %}":                              "raw",
		"{{ (x] }}":                              "unexpected",
		"{{ x ! y }}":                            "unexpected",
		"{{ 99999999999999999999 }}":             "too large",
		"{{ '\\ud8zz' }}":                        "no character",
		"{% for a, b, c in d %}{% endfor %}":     "3 targets",
		"{% for x y %}{% endfor %}":              "without in",
		"{% set a, b = 1, 2 %}":                  "target",
		"{% set %}":                              "target",
		"{% if %}x{% endif %}":                   "condition",
		"{% macro f %}{% endmacro %}":            "macro",
		"{% %}":                                  "without a name",
		"{{ daisy_out(1) }}":                     "daisy_out",
		"{{ x is }}":                             "without a test",
		"{{ x[1:2:3:4] }}":                       "4 parts",
		"{{ " + strings.Repeat("(", 101) + " }}": "101",
		strings.Repeat("x", maxSource+1):         "bytes",
		"{{ " + strings.Repeat("[", 1<<16) + " }}":    "brackets",
		"{% for x in y recursive %}{% endfor %}":      "recursive",
		"{% endfor %}":                                "endfor",
		"{% set x = %}{% else %}":                     "else",
		"{{ x | }}":                                   "filter",
		"{% macro f(a.b) %}{% endmacro %}":            "parameter",
		"{% if a %}{% else %}{% elif b %}{% endif %}": "elif",
	} {
		if _, err := Compile(source, "", ""); err == nil || !strings.Contains(err.Error(), says) && says != "101" {
			t.Errorf("%.60s: %v, want an error about %s", source, err, says)
		}
	}
}

const conversation = `[{"role":"user","content":"hi"}]`

func TestHostileTemplatesEnd(t *testing.T) {
	for name, source := range map[string]string{
		"recursion":           "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
		"recursion of two":    "{% macro f(g) %}{{ g(f) }}{% endmacro %}{{ f(f) }}",
		"loops":               "{% for a in range(3000) %}{% for b in range(3000) %}{% endfor %}{% endfor %}",
		"loops that write":    "{% for a in range(100000) %}{{ 'x' * 1000 }}{% endfor %}",
		"large range":         "{{ range(1000000000000)|length }}",
		"falling range":       "{{ range(0, -1000000000000, -1)|length }}",
		"long string":         "{{ 'x' * 1000000000 }}",
		"longer string":       "{{ ('x' * 10000000) * 10 }}",
		"long list":           "{{ [1] * 1000000000 }}",
		"doubling":            "{% set a = 'xxxxxxxx' %}" + strings.Repeat("{% set a = a ~ a %}", 60),
		"doubling blocks":     "{% set a = 'xxxxxxxx' %}" + strings.Repeat("{% set a %}{{ a }}{{ a }}{% endset %}", 60),
		"doubling by macros":  "{% macro f(a) %}{{ a }}{{ a }}{% endmacro %}{{ f(f(f(f(f(f(f(f(f(f('" + strings.Repeat("x", 1<<16) + "')))))))))) }}",
		"replace":             "{% set a = 'x' * 100000 %}{{ a|replace('x', a) }}",
		"replace, the method": "{% set a = 'x' * 100000 %}{{ a.replace('x', a) }}",
		"join":                "{% set a = 'x' * 1000000 %}{{ range(1000)|join(a) }}",
		"indent":              "{{ ('\n' * 1000000)|indent(1000000, true, true) }}",
		"list in itself":      "{% set a = [] %}{% set b = [a] %}{{ a.append(b) }}{{ a }}",
		"dictionary":          "{% set a = {} %}{{ a.update({'b': [a]}) }}{{ a }}",
		"namespace":           "{% set a = namespace() %}{% set a.b = [a] %}{{ a }}",
		"deeper and deeper":   "{% set n = namespace(a=[]) %}{% for i in range(100000) %}{% set n.a = [n.a] %}{% endfor %}{{ n.a }}",
		"appended deeply":     "{% set n = namespace(a=[]) %}{% set top = n.a %}{% for i in range(900000) %}{% set b = [] %}{% set c = [[[[[[[[b]]]]]]]] %}{% do n.a.append(c) %}{% set n.a = b %}{% endfor %}{{ top }}",
		"sorting":             "{% for i in range(200) %}{% set x = range(1000000)|sort(reverse=true) %}{% endfor %}",
		"division by zero":    "{{ raise_exception('no') if 1 // 0 == 0 }}",
		"bad slice":           "{{ 'abc'[::0] }}",
		"no test":             "{{ [1]|select('nonesuch')|list }}",
		"no attribute":        "{{ [1]|selectattr()|list }}",
		"not iterable":        "{% for x in 3 %}{% endfor %}",
		"not callable":        "{{ messages() }}",
		"unknown filter":      "{{ messages|nonesuch }}",
		"undefined to JSON":   "{{ missing|tojson }}",
		"items of a string":   "{{ 'x'|items }}",
		"empty separator":     "{{ 'x'.split('') }}",
		"format":              "{{ '{a} {'.format(1) }}",
	} {
		t.Run(name, func(t *testing.T) {
			tpl, err := Compile(source, "", "")
			if err != nil {
				t.Fatal(err)
			}
			tpl.patience = time.Second
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got, err := tpl.Render(json.RawMessage(conversation), nil, true, nil)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Errorf("rendered as %.100q", got)
			}
			if after.HeapSys > before.HeapSys+(1<<30) {
				t.Errorf("took %d bytes", after.HeapSys-before.HeapSys)
			}
		})
	}
}

func TestContents(t *testing.T) {
	plain := "{% for m in messages %}[{{ m.content }}]{% endfor %}"
	parts := "{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}"
	for _, test := range []struct{ name, template, content, want, says string }{
		{"string", plain, `"a"`, "[a]", ""},
		{"parts", plain, `[{"type":"text","text":"a"},{"type":"text","text":"b"}]`, "[a\nb]", ""},
		{"no parts", plain, `[]`, "[]", ""},
		{"null", plain, `null`, "[None]", ""},
		{"string for parts", parts, `"a"`, "[a]", ""},
		{"parts for parts", parts, `[{"type":"text","text":"a"},{"type":"text","text":"b"}]`, "[a][b]", ""},
		{"image", plain, `[{"type":"image_url","image_url":{"url":"x"}}]`, "", "image_url"},
		{"part without text", plain, `[{"type":"text"}]`, "", "only text"},
		{"part of another type", plain, `["a"]`, "", "no object"},
	} {
		tpl, err := Compile(test.template, "", "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := tpl.Render(json.RawMessage(`[{"role":"user","content":`+test.content+`}]`), nil, true, nil)
		if test.says == "" && (err != nil || got != test.want) || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: %q, %v", test.name, got, err)
		}
	}
}

func TestArgumentsOfToolCalls(t *testing.T) {
	messages := json.RawMessage(`[{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":"{\"b\":1,\"a\":2}"}}]}]`)
	for source, want := range map[string]string{
		"{{ messages[0].tool_calls[0].function.arguments | tojson }}": `{"b": 1, "a": 2}`,
		"{{ messages[0].tool_calls[0]['function']['arguments'] }}":    `{"b":1,"a":2}`,
	} {
		tpl, err := Compile(source, "", "")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tpl.Render(messages, nil, false, nil); err != nil || got != want {
			t.Errorf("%s: %q, %v", source, got, err)
		}
	}
}

func TestBadInputs(t *testing.T) {
	tpl, err := Compile("{{ messages|length }}{{ tools|tojson }}{{ x }}", "", "")
	if err != nil {
		t.Fatal(err)
	}
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	for _, test := range []struct{ messages, tools, x string }{
		{"", "", "1"}, {"{}", "", "1"}, {"[1]", "", "1"}, {"[", "", "1"}, {"[] []", "", "1"}, {"[{\"a\":" + deep + "}]", "", "1"},
		{"[]", "{", "1"}, {"[]", "", "nope"}, {"[]", deep, "1"}, {"[1e999]", "", "1"},
	} {
		_, err := tpl.Render(json.RawMessage(test.messages), json.RawMessage(test.tools), true, map[string]json.RawMessage{"x": json.RawMessage(test.x)})
		if err == nil {
			t.Errorf("%.40q, %.40q, %q: no error", test.messages, test.tools, test.x)
		}
	}
	got, err := tpl.Render(json.RawMessage("[]"), json.RawMessage("null"), true, map[string]json.RawMessage{"x": json.RawMessage(`"y"`), "messages": nil})
	if err == nil {
		t.Errorf("a variable that is no JSON: %q", got)
	}
	got, err = tpl.Render(json.RawMessage("[]"), nil, true, map[string]json.RawMessage{"x": json.RawMessage(`"y"`), "range": json.RawMessage("1")})
	if err != nil || got != "0nully" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestTimes(t *testing.T) {
	for format, want := range map[string]string{
		"%Y-%m-%d": "2026-03-07", "%d %b %Y": "07 Mar 2026", "%A, %B %-d": "Saturday, March 7", "%H:%M:%S %p": "09:05:04 AM",
		"%-I%%": "9%", "%j %y": "066 26", "%Q%": "%Q%", "Ü%é": "Ü%é",
	} {
		if got := strftime(testNow(), format); got != want {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
}

func TestFloatsAsInPython(t *testing.T) {
	for f, want := range map[float64]string{0: "0.0", 1: "1.0", -2.5: "-2.5", 1e15: "1000000000000000.0", 1e16: "1e+16", 1e-4: "0.0001", 1e-5: "1e-05", 1e100: "1e+100"} {
		if got := float(f); got != want {
			t.Errorf("%v: %s, want %s", f, got, want)
		}
	}
}

func TestConcurrentRendering(t *testing.T) {
	tpl, err := Compile("{% set a = [] %}{% for m in messages %}{% do a.append(m.content) %}{% endfor %}{{ a|join(',') }}", "", "")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				if got, err := tpl.Render(json.RawMessage(conversation), nil, true, nil); err != nil || got != "hi" {
					t.Errorf("%q, %v", got, err)
					return
				}
			}
		})
	}
	group.Wait()
}

// FuzzTemplate: any template is refused, or renders, or fails, and never ends the process.
func FuzzTemplate(f *testing.F) {
	f.Add("{% for m in messages %}{{ m.role ~ ': ' }}{{- m['content'] | trim -}}\n{% endfor %}", "hi")
	f.Add("{% macro f(a, b=[1,2]) %}{{ a[b[0]:] }}{% endmacro %}{{ f('xyz') }}{% set ns = namespace(x=1) %}{% set ns.x = ns.x * 2 %}", "")
	f.Add("{{ [3,1]|sort|map('string')|join(', ') }}{% raw %}{{{% endraw %}{# c #}{{ 'a' is in 'abc' }}{{ {'a': {}} }}", "x")
	f.Fuzz(func(t *testing.T, source, content string) {
		if len(source) > 2000 {
			return
		}
		tpl, err := compile(source, "<s>", "</s>", time.Now)
		if err != nil {
			return
		}
		text, _ := json.Marshal(content)
		messages := json.RawMessage(`[{"role":"system","content":` + string(text) + `},{"role":"user","content":"x"}]`)
		got, err := tpl.Render(messages, nil, true, nil)
		again, errAgain := tpl.Render(messages, nil, true, nil)
		if (err == nil) != (errAgain == nil) || got != again {
			t.Errorf("%q, %v; then %q, %v", got, err, again, errAgain)
		}
	})
}

// FuzzInput: whatever a client sends, the model's own templates render it or refuse it.
func FuzzInput(f *testing.F) {
	var list []*Template
	for _, source := range []string{
		"{% for m in messages %}{{ m.role + m.content|trim }}{% for c in m.tool_calls %}{{ c.function.arguments|tojson }}{% endfor %}{% endfor %}{{ tools|tojson }}",
		"{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
	} {
		tpl, err := Compile(source, "", "")
		if err != nil {
			f.Fatal(err)
		}
		list = append(list, tpl)
	}
	f.Add([]byte(conversation), []byte(`[{"type":"function"}]`))
	f.Add([]byte(`[{"role":"assistant","content":[{"type":"text","text":"a"}],"tool_calls":[{"function":{"arguments":"{}"}}]}]`), []byte(nil))
	f.Fuzz(func(t *testing.T, messages, tools []byte) {
		for _, tpl := range list {
			if _, err := tpl.Render(messages, tools, true, nil); err == nil && !json.Valid(messages) {
				t.Errorf("rendered %q", messages)
			}
		}
	})
}
