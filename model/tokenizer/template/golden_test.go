package template

import (
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"
)

type golden struct {
	Cases map[string]struct {
		Messages  json.RawMessage            `json:"messages"`
		Tools     json.RawMessage            `json:"tools"`
		AddPrompt bool                       `json:"add_generation_prompt"`
		Extra     map[string]json.RawMessage `json:"extra"`
	}
	Templates []struct {
		Name  string
		Cases []struct {
			Case, Text, Raised string
		}
	}
}

// testNow is the time at which the golden renderings were made.
func testNow() time.Time { return time.Date(2026, 3, 7, 9, 5, 4, 0, time.UTC) }

func TestRendersLikeJinja(t *testing.T) {
	data, err := os.ReadFile("testdata/renderings.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.Templates) < 10 || len(g.Cases) < 10 {
		t.Fatalf("only %d templates and %d cases", len(g.Templates), len(g.Cases))
	}
	for _, want := range g.Templates {
		t.Run(want.Name, func(t *testing.T) {
			source, err := os.ReadFile("testdata/templates/" + want.Name + ".jinja")
			if err != nil {
				t.Fatal(err)
			}
			tpl, err := compile(string(source), "<s>", "</s>", testNow)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range want.Cases {
				in := g.Cases[c.Case]
				got, err := tpl.Render(in.Messages, in.Tools, in.AddPrompt, in.Extra)
				var raised *RaisedError
				switch {
				case c.Raised != "":
					if !errors.As(err, &raised) || raised.Message != c.Raised {
						t.Errorf("%s: error %v, want %q", c.Case, err, c.Raised)
					}
				case err != nil:
					t.Errorf("%s: %v", c.Case, err)
				case got != c.Text:
					t.Errorf("%s: %s", c.Case, difference(got, c.Text))
				}
			}
		})
	}
}

// difference shows where two texts part.
func difference(got, want string) string {
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	cut := func(s string) string {
		s = s[max(0, i-40):]
		return s[:min(len(s), 120)]
	}
	quoted, _ := json.Marshal([]string{cut(got), cut(want)})
	return "got, want from the first difference: " + string(quoted)
}
