package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"

	"github.com/daisy-llm/daisy/model/tokenizer/template"
)

// maxTools bounds the tools of a request; OpenAI's number.
const maxTools = 128

// conversation reads the messages and tools of a chat request and writes them out as the model's template says.
func (g *Gateway) conversation(o *object) prompt {
	if g.cfg.Template == nil {
		o.fail(unsupported("messages", "This model has no chat template: use /v1/completions."))
	}
	list := messages(o)
	tools := g.tools(o)
	extra := map[string]json.RawMessage{}
	if kwargs := o.object("chat_template_kwargs"); kwargs != nil {
		for name := range kwargs.fields {
			extra[name] = kwargs.fields[name]
		}
	}
	open := o.flag("add_generation_prompt", true)
	addSpecial := o.flag("add_special_tokens", false) // templates write what the model wants at the beginning
	if *o.err != nil {
		return prompt{}
	}
	text, err := g.cfg.Template.Render(list, tools, open, extra)
	if err != nil {
		var raised *template.RaisedError
		if errors.As(err, &raised) {
			err = errors.New(raised.Message)
		}
		o.fail(invalid("messages", "invalid_value", "The model's chat template does not take this conversation: %v", err))
		return prompt{}
	}
	p := prompt{text: text, ids: g.begin(g.encode(text, addSpecial))}
	g.checkLength(o, "messages", p.ids)
	return p
}

// messages checks the conversation and gives it as the template gets it: each text in one piece, roles by the names that
// templates know, nothing that is null. Fields that only some templates know stay as they are.
func messages(o *object) json.RawMessage {
	list := o.array("messages", math.MaxInt)
	switch {
	case *o.err != nil:
		return nil
	case list == nil:
		o.fail(invalid("messages", "missing_required_parameter", "'messages' is required: give at least one message."))
		return nil
	case len(list) == 0:
		o.fail(invalid("messages", "empty_array", "'messages' must have at least one message."))
		return nil
	}
	var b bytes.Buffer
	for i, e := range list {
		b.WriteByte("[,"[min(i, 1)])
		m := o.parseObject(e.param, e.raw)
		if *o.err != nil {
			return nil
		}
		b.WriteString(`{"role":`)
		b.Write(encode(readRole(m)))
		b.WriteString(`,"content":`)
		b.Write(encode(readContent(m)))
		readToolCalls(m)
		for key, value := range members(e.raw) {
			if name := text(key); name != "role" && name != "content" && string(value) != "null" {
				b.WriteByte(',')
				b.Write(key)
				b.WriteByte(':')
				b.Write(value)
			}
		}
		b.WriteByte('}')
	}
	b.WriteByte(']')
	return b.Bytes()
}

func readRole(m *object) string {
	switch role := m.text("role"); role {
	case "user", "assistant", "system", "tool":
		return role
	case "developer":
		return "system" // the newer name
	case "":
		m.fail(invalid(m.join("role"), "missing_required_parameter", "'%s' is required.", m.join("role")))
	default:
		m.fail(invalid(m.join("role"), "invalid_value",
			"'%s' must be one of 'system', 'developer', 'user', 'assistant' and 'tool', not '%s'.", m.join("role"), abridge(role)))
	}
	return ""
}

// readContent reads a message's text, given as such or in parts.
func readContent(m *object) string {
	raw, param := m.raw("content"), m.join("content")
	switch {
	case raw == nil && m.text("role") == "assistant":
		return "" // it called tools
	case raw == nil:
		m.fail(invalid(param, "missing_required_parameter", "'%s' is required.", param))
		return ""
	case raw[0] == '"':
		return text(raw)
	case raw[0] != '[':
		m.wrongType(param, raw, "a string or an array of parts")
		return ""
	}
	var texts []string
	for _, e := range m.elements(param, raw, math.MaxInt) {
		part := m.parseObject(e.param, e.raw)
		if part == nil {
			return ""
		}
		switch kind := part.text("type"); {
		case kind == "text" && part.has("text"):
			texts = append(texts, part.text("text"))
		case kind == "text":
			part.fail(invalid(part.join("text"), "missing_required_parameter", "'%s' is required.", part.join("text")))
		case kind == "refusal":
			texts = append(texts, part.text("refusal"))
		case kind == "":
			part.fail(invalid(part.join("type"), "missing_required_parameter", "'%s' is required.", part.join("type")))
		default:
			part.fail(invalid(part.join("type"), "unsupported_content",
				"'%s' is '%s': this model takes parts of the type 'text' only.", part.join("type"), abridge(kind)))
		}
	}
	return strings.Join(texts, "\n")
}

// readToolCalls checks the form of what templates take apart.
func readToolCalls(m *object) {
	m.text("tool_call_id")
	m.text("name")
	for _, e := range m.array("tool_calls", maxTools) {
		if call := m.parseObject(e.param, e.raw); call != nil {
			if f := call.object("function"); f == nil {
				call.fail(invalid(call.join("function"), "missing_required_parameter", "'%s' is required.", call.join("function")))
			} else if f.text("name") == "" {
				f.fail(invalid(f.join("name"), "missing_required_parameter", "'%s' is required.", f.join("name")))
			}
		}
	}
}

// tools gives the tools that the template is to show, or nil. A call that the model makes arrives as text, in the form that
// the model was trained on.
func (g *Gateway) tools(o *object) json.RawMessage {
	list := o.array("tools", maxTools)
	for _, e := range list {
		tool := o.parseObject(e.param, e.raw)
		if tool == nil {
			return nil
		}
		if kind := tool.text("type"); kind != "function" {
			tool.fail(invalid(tool.join("type"), "invalid_value", "'%s' must be 'function', not '%s'.", tool.join("type"), abridge(kind)))
		}
		if f := tool.object("function"); f == nil || f.text("name") == "" {
			tool.fail(invalid(tool.join("function.name"), "missing_required_parameter", "'%s' is required.", tool.join("function.name")))
		}
	}
	switch choice := o.raw("tool_choice"); string(choice) {
	case "", `"auto"`:
		if len(list) > 0 && !g.showsTools {
			o.fail(unsupported("tools", "The chat template of this model does not tell it of tools: leave out 'tools', or set 'tool_choice' to 'none'."))
		}
	case `"none"`:
		return nil
	default:
		if choice[0] != '"' && choice[0] != '{' {
			o.wrongType("tool_choice", choice, "a string or an object")
		}
		o.fail(unsupported("tool_choice", "'tool_choice' must be 'none' or 'auto': a model cannot be made to call a tool here."))
	}
	if len(list) == 0 {
		return nil
	}
	return o.raw("tools")
}
