package gateway

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model/token"
)

func TestFieldsOfAnObject(t *testing.T) {
	o, err := parse([]byte(` {"a" : 1.5 ,"b":[ 1 , "x,]}" , {"c":[{}]} ] , "t":true,"n":null,
		"s":"q\"\u00e9\n", "o":{"i":-0,"f":16.0,"e":1E2,"big":9007199254740993}, "empty":[ ], "none":{ }}` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if v := o.number("a", 7, 0, 2); v != 1.5 {
		t.Error(v)
	}
	if v := o.number("n", 7, 0, 2); v != 7 {
		t.Error("null is not absent")
	}
	list := o.array("b", 3)
	if len(list) != 3 || string(list[0].raw) != "1" || text(list[1].raw) != "x,]}" || string(list[2].raw) != `{"c":[{}]}` || list[2].param != "b[2]" {
		t.Errorf("%q", list)
	}
	if !o.flag("t", false) || o.flag("absent", false) || !o.flag("n", true) {
		t.Error("flags")
	}
	if v := o.text("s"); v != "q\"é\n" {
		t.Errorf("%q", v)
	}
	in := o.object("o")
	if in.integer("i", 1, 0, 9) != 0 || in.integer("f", 1, 0, 99) != 16 || in.integer("e", 1, 0, 100) != 100 || in.integer("big", 0, 0, math.MaxInt) != 9007199254740993 {
		t.Error("integers")
	}
	if len(o.array("empty", 0)) != 0 || len(o.object("none").fields) != 0 || o.object("absent") != nil || o.array("absent", 1) != nil {
		t.Error("nothing")
	}
	if *o.err != nil {
		t.Fatal(*o.err)
	}
	in.text("f")
	o.flag("a", false) // the first failure is the one that is told
	var p *problem
	if !errors.As(*o.err, &p) || p.param != "o.f" || p.code != "invalid_type" {
		t.Errorf("%v", *o.err)
	}
	if o.number("a", 7, 0, 2) != 7 {
		t.Error("a failed object is still read")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a":[1,"\"",{"b":null}],"c":"\\"}`, `{"a":1,"a":2}`, `{"x":{"y":[[],{}]}}`, "{\"\\u0061\":\"\xff\"}", `{ "a" : -1.5e3 , "b" : [ ] }`, `{"a":"\ud800"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := parse(body)
		if err != nil {
			var p *problem
			if !errors.As(err, &p) || p.status != 400 || !json.Valid(p.body()) {
				t.Fatalf("%v", err)
			}
			return
		}
		// What the splitting of members finds is what encoding/json finds.
		var want map[string]json.RawMessage
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatalf("accepted %q: %v", body, err)
		}
		if len(want) != len(o.fields) {
			t.Fatalf("%q: %d fields, want %d", body, len(o.fields), len(want))
		}
		for name, raw := range want {
			if string(o.fields[name]) != string(raw) {
				t.Fatalf("%q: field %q is %q, want %q", body, name, o.fields[name], raw)
			}
			if len(raw) > 0 && raw[0] == '[' {
				var list []json.RawMessage
				if err := json.Unmarshal(raw, &list); err != nil {
					t.Fatal(err)
				}
				for i, e := range o.elements(name, raw, math.MaxInt) {
					if string(e.raw) != string(list[i]) {
						t.Fatalf("%q: element %d of %q is %q, want %q", body, i, name, e.raw, list[i])
					}
				}
			}
		}
	})
}

// Whatever a client sends, it is either refused with an error in OpenAI's form or becomes requests within their bounds.
func FuzzRequests(f *testing.F) {
	for _, s := range []string{
		with(`"temperature":0.5,"stop":["a"],"logit_bias":{"5":1},"n":2,"seed":-1,"stream":true,"stream_options":{"include_usage":true}`),
		prompted(`"prompt":1`), `{"prompt":["a","b"],"echo":true,"max_tokens":5}`, `{"prompt":[[1,2],[3]],"logprobs":2}`,
		`{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]},{"role":"tool","content":[{"type":"text","text":"x"}]}],"tools":[{"type":"function","function":{"name":"f"}}]}`,
	} {
		f.Add([]byte(s))
	}
	g := build(f, say(""))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, read := range []func(*object) *job{g.chatJob, g.completionsJob} {
			o, err := parse(body)
			if err != nil {
				return
			}
			j := read(o)
			if *o.err != nil {
				var p *problem
				if !errors.As(*o.err, &p) || p.status < 400 || p.status >= 500 || p.message == "" || !json.Valid(p.body()) {
					t.Fatalf("%q: %v", body, *o.err)
				}
				continue
			}
			j.plan()
			if len(j.answers) == 0 || len(j.answers) > g.cfg.MaxChoices {
				t.Fatalf("%q: %d answers", body, len(j.answers))
			}
			for _, c := range j.answers {
				r := c.request
				if len(r.Prompt) == 0 || len(r.Prompt) >= g.cfg.Context || r.MaxTokens < 0 || len(r.Stop) > maxStops || r.Top < 0 || r.Top > 20 {
					t.Fatalf("%q: %+v", body, r)
				}
				for _, id := range r.Prompt {
					if id < 0 || int(id) >= byteVocabulary {
						t.Fatalf("%q: token %d", body, id)
					}
				}
				if err := r.Sampling.Validate(byteVocabulary); err != nil {
					t.Fatalf("%q: %v", body, err)
				}
			}
		}
	})
}

func TestTextOffsets(t *testing.T) {
	w := words{byteTokenizer{}}
	c := &choice{}
	var got []int
	for _, id := range []token.ID{imStart, 'a', 0xf0, 0x9f, 0x8c, 0xbc, imEnd, 'b'} {
		got = append(got, w.advance(c, id))
	}
	for i, want := range []int{0, 0, 1, 1, 1, 1, 2, 2} {
		if got[i] != want {
			t.Fatalf("%v", got)
		}
	}
}

func TestLogprobsThatJSONCannotSay(t *testing.T) {
	for _, v := range []float32{float32(math.NaN()), float32(math.Inf(-1)), -1e30} {
		if logprob(v) != leastLogprob {
			t.Error(v)
		}
	}
	if logprob(-1.5) != -1.5 {
		t.Error("changed")
	}
}

func TestAbridge(t *testing.T) {
	if s := abridge(strings.Repeat("é", 100)); len(s) > 80 || !strings.HasSuffix(s, "é...") {
		t.Errorf("%q", s)
	}
}
