package gateway

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/model/tokenizer/template"
)

// turns is a template of the ChatML form, which keeps what it was given. Without tools it does not know them.
type turns struct {
	tools bool
	given *rendering
}

type rendering struct {
	messages, tools string
	open            bool
	extra           map[string]json.RawMessage
}

func (t turns) Render(messages, tools json.RawMessage, open bool, extra map[string]json.RawMessage) (string, error) {
	if t.given != nil {
		*t.given = rendering{string(messages), string(tools), open, extra}
	}
	var list []struct{ Role, Content string }
	if err := json.Unmarshal(messages, &list); err != nil {
		return "", err
	}
	var b strings.Builder
	if t.tools {
		b.Write(tools)
	}
	for _, m := range list {
		if m.Content == "raise" {
			return "", &template.RaisedError{Message: "roles must alternate"}
		}
		b.WriteString("<|im_start|>" + m.Role + "\n" + m.Content + "<|im_end|>\n")
	}
	if open {
		b.WriteString("<|im_start|>assistant\n")
	}
	return b.String(), nil
}

const weather = `[{"type":"function","function":{"name":"weather","parameters":{"z":1,"a":2}}}]`

func TestWhatTemplatesGet(t *testing.T) {
	var given rendering
	engine := say("ok")
	s := start(t, engine, func(c *Config) { c.Template, c.Context = turns{tools: true, given: &given}, 4096 })
	for _, c := range []struct{ body, messages, tools string }{
		{`{"messages":[{"content":"be brief","role":"developer"},{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"\u00e9\"<"}],"name":null}]}`,
			`[{"role":"system","content":"be brief"},{"role":"user","content":"a\né\"<"}]`, ``},
		{`{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"weather","arguments":"{}"}}],"reasoning_content":"hm"},{"role":"tool","tool_call_id":"1","content":"sun"}],"tools":` + weather + `}`,
			`[{"role":"user","content":"x"},{"role":"assistant","content":"","tool_calls":[{"id":"1","type":"function","function":{"name":"weather","arguments":"{}"}}],"reasoning_content":"hm"},{"role":"tool","content":"sun","tool_call_id":"1"}]`, weather},
		{`{"messages":[{"role":"user","content":"x"}],"tool_choice":"none","tools":` + weather + `}`, `[{"role":"user","content":"x"}]`, ``},
		{`{"messages":[{"role":"user","content":""}],"tool_choice":"auto"}`, `[{"role":"user","content":""}]`, ``},
	} {
		if res, body := post(t, s.URL+"/v1/chat/completions", c.body); res.StatusCode != 200 {
			t.Errorf("%s: %d %s", c.body, res.StatusCode, body)
		}
		if given.messages != c.messages || given.tools != c.tools || !given.open {
			t.Errorf("%s\ngot  %s, tools %s\nwant %s, tools %s", c.body, given.messages, given.tools, c.messages, c.tools)
		}
	}
	_, _ = post(t, s.URL+"/v1/chat/completions", with(`"chat_template_kwargs":{"enable_thinking":false},"add_generation_prompt":false`))
	if string(given.extra["enable_thinking"]) != "false" || given.open {
		t.Errorf("%+v", given)
	}
}

func TestRefusesConversations(t *testing.T) {
	for name, c := range map[string]struct {
		template          Template
		body, code, param string
		says              string
	}{
		"no template":          {nil, with(`"n":1`), "unsupported_parameter", "messages", "/v1/completions"},
		"tools not shown":      {turns{}, with(`"tools":` + weather), "unsupported_parameter", "tools", "tool_choice"},
		"a tool to be called":  {turns{tools: true}, with(`"tool_choice":"required","tools":` + weather), "unsupported_parameter", "tool_choice", "auto"},
		"one tool in question": {turns{tools: true}, with(`"tool_choice":{"type":"function","function":{"name":"weather"}},"tools":` + weather), "unsupported_parameter", "tool_choice", ""},
		"choice of wrong type": {turns{tools: true}, with(`"tool_choice":5`), "invalid_type", "tool_choice", ""},
		"tools of wrong type":  {turns{tools: true}, with(`"tools":{}`), "invalid_type", "tools", ""},
		"tool of wrong type":   {turns{tools: true}, with(`"tools":["weather"]`), "invalid_type", "tools[0]", ""},
		"tool of another kind": {turns{tools: true}, with(`"tools":[{"type":"web_search"}]`), "invalid_value", "tools[0].type", "web_search"},
		"tool without name":    {turns{tools: true}, with(`"tools":[{"type":"function","function":{}}]`), "missing_required_parameter", "tools[0].function.name", ""},
		"call without name":    {turns{}, `{"messages":[{"role":"assistant","tool_calls":[{"function":{}}]}]}`, "missing_required_parameter", "messages[0].tool_calls[0].function.name", ""},
		"call of wrong type":   {turns{}, `{"messages":[{"role":"assistant","tool_calls":[5]}]}`, "invalid_type", "messages[0].tool_calls[0]", ""},
		"kwargs of wrong type": {turns{}, with(`"chat_template_kwargs":[]`), "invalid_type", "chat_template_kwargs", ""},
		"the template's own":   {turns{}, `{"messages":[{"role":"user","content":"raise"}]}`, "invalid_value", "messages", "conversation: roles must alternate"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, say("ok"), func(cfg *Config) { cfg.Template = c.template })
			res, body := post(t, s.URL+"/v1/chat/completions", c.body)
			f := readFailure(t, body)
			if res.StatusCode != 400 || *f.Error.Code != c.code || f.Error.Param == nil || *f.Error.Param != c.param || !strings.Contains(f.Error.Message, c.says) {
				t.Errorf("%d %s", res.StatusCode, body)
			}
		})
	}
}

// A model's real template, from a real client's request.
func TestRealTemplate(t *testing.T) {
	real, err := template.Compile("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}", "", "<|im_end|>")
	if err != nil {
		t.Fatal(err)
	}
	engine := say("ok")
	c := client(t, engine, func(cfg *Config) { cfg.Template = real })
	if _, err := c.Chat.Completions.New(t.Context(), question("hi")); err != nil {
		t.Fatal(err)
	}
	if got := (byteTokenizer{}).Decode(engine.asked()[0].Prompt, true); got != "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n" {
		t.Errorf("%q", got)
	}
}

// Whether a template writes the token that begins a sequence or leaves it to the tokenizer, a model that wants one gets one.
func TestConversationsBeginOnce(t *testing.T) {
	for _, test := range []struct {
		begins bool
		ids    []token.ID
		want   int
	}{
		{true, []token.ID{'h', 'i'}, 1},
		{true, []token.ID{bos, 'h', 'i'}, 1},
		{true, nil, 1},
		{false, []token.ID{'h', 'i'}, 0},
		{false, []token.ID{bos, 'h', 'i'}, 1},
	} {
		g := &Gateway{cfg: Config{Tokenizer: byteTokenizer{begins: test.begins}}}
		got := 0
		for _, id := range g.begin(test.ids) {
			if id == bos {
				got++
			}
		}
		if got != test.want {
			t.Errorf("begins %v, rendered %v: %d tokens begin it, want %d", test.begins, test.ids, got, test.want)
		}
	}
}
