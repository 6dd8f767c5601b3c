package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep a request nests: deeper ones cost stack in whatever walks them later.
const maxDepth = 64

// parse reads a whole body, which must be one JSON object in valid UTF-8.
func parse(body []byte) (*object, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, invalid("", "invalid_json", "The request body is empty: send a JSON object.")
	}
	if at := invalidUTF8(body); at >= 0 {
		return nil, invalid("", "invalid_json", "The request body is not valid UTF-8 at %s.", position(body, at))
	}
	if at := tooDeep(body); at >= 0 {
		return nil, invalid("", "invalid_json", "The request body nests deeper than %d levels at %s.", maxDepth, position(body, at))
	}
	if !json.Valid(body) {
		var ignored json.RawMessage
		err := json.Unmarshal(body, &ignored)
		at := len(body) // where one that ends too early goes on
		if syntax, ok := err.(*json.SyntaxError); ok && !strings.Contains(err.Error(), "unexpected end") {
			at = max(int(syntax.Offset)-1, 0) // Offset counts the byte that does not fit
		}
		return nil, invalid("", "invalid_json", "The request body is not valid JSON: %v at %s.", err, position(body, at))
	}
	body = bytes.TrimSpace(body)
	if body[0] != '{' {
		return nil, invalid("", "invalid_json", "The request body must be a JSON object, not %s.", describe(body))
	}
	var err error
	o := newObject("", body, &err)
	return o, err
}

// members walks the keys (nil for an array) and values of a valid JSON object or array, without copying them.
func members(raw []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		rest := space(raw[1:])
		for rest[0] != '}' && rest[0] != ']' {
			var key []byte
			if raw[0] == '{' {
				key = rest[:valueEnd(rest)]
				rest = space(space(rest[len(key):])[1:])
			}
			value := rest[:valueEnd(rest)]
			if !yield(key, value) {
				return
			}
			if rest = space(rest[len(value):]); rest[0] == ',' {
				rest = space(rest[1:])
			}
		}
	}
}

func space(raw []byte) []byte { return bytes.TrimLeft(raw, " \t\r\n") }

// valueEnd is the length of the valid JSON value that raw begins with.
func valueEnd(raw []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			if quoted = !quoted; !quoted && depth == 0 {
				return i + 1
			}
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth == 0 {
				return i // the end of what a number or a literal stands in
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case depth == 0 && (c == ',' || c == ':' || c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			return i
		}
	}
	return len(raw)
}

// tooDeep is where nesting first passes maxDepth, or -1. The text need not be valid JSON.
func tooDeep(raw []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return i
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return -1
}

// text is the value of a valid JSON string.
func text(raw []byte) string {
	if !slices.Contains(raw, '\\') {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		panic("gateway: a JSON string that was checked does not parse") // parse lets none through
	}
	return s
}

// invalidUTF8 is where raw stops being UTF-8, or -1.
func invalidUTF8(raw []byte) int {
	for at := 0; at < len(raw); {
		r, size := utf8.DecodeRune(raw[at:])
		if r == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
	return -1
}

func isNumber(raw []byte) bool { return raw[0] == '-' || (raw[0] >= '0' && raw[0] <= '9') }

// describe says what a JSON value is, as one says it of a wrong one.
func describe(raw []byte) string {
	switch c := raw[0]; {
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a string"
	case c == 't' || c == 'f':
		return "a boolean"
	case c == 'n':
		return "null"
	}
	return "the number " + abridge(raw)
}

// abridge keeps a client's own text from filling an error message.
func abridge[S string | []byte](s S) string {
	const most = 64
	if t := string(s); len(t) <= most {
		return t
	} else {
		return strings.ToValidUTF8(t[:most], "") + "..."
	}
}

// position gives a byte's place as editors count it.
func position(body []byte, at int) string {
	at = min(at, len(body))
	line := bytes.Count(body[:at], []byte{'\n'}) + 1
	column := at - (bytes.LastIndexByte(body[:at], '\n') + 1) + 1
	return fmt.Sprintf("line %d, column %d", line, column)
}

// encode is the JSON of one of our own values, without the escapes that are meant for HTML.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("gateway: " + err.Error()) // our own types: no cycles, no infinities
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}
