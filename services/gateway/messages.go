package gateway

import (
	"math"
	"strings"
)

// message is one turn of a conversation, with its text in one piece.
type message struct {
	role       string
	content    string
	name       string
	toolCalls  []byte // JSON array, or nil
	toolCallID string
}

// messages reads the conversation of a chat request.
func messages(o *object) []message {
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
	var conversation []message
	for _, e := range list {
		m := o.parseObject(e.param, e.raw)
		if *o.err != nil {
			return nil
		}
		conversation = append(conversation, readMessage(m))
	}
	return conversation
}

func readMessage(m *object) message {
	v := message{role: m.text("role"), name: m.text("name"), toolCallID: m.text("tool_call_id")}
	if calls := m.array("tool_calls", math.MaxInt); len(calls) > 0 {
		v.toolCalls = m.raw("tool_calls")
	}
	switch v.role {
	case "user", "assistant", "system", "tool":
	case "developer":
		v.role = "system" // the newer name; templates know the older
	case "":
		m.fail(invalid(m.join("role"), "missing_required_parameter", "'%s' is required.", m.join("role")))
	default:
		m.fail(invalid(m.join("role"), "invalid_value",
			"'%s' must be one of 'system', 'developer', 'user', 'assistant' and 'tool', not '%s'.", m.join("role"), abridge(v.role)))
	}
	if !m.has("content") {
		if v.role != "assistant" {
			m.fail(invalid(m.join("content"), "missing_required_parameter", "'%s' is required.", m.join("content")))
		}
		return v
	}
	v.content = readContent(m)
	return v
}

// readContent reads a message's text, given as such or in parts.
func readContent(m *object) string {
	raw, param := m.raw("content"), m.join("content")
	switch raw[0] {
	case '"':
		return text(raw)
	case '[':
	default:
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
