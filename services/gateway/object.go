package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep a request nests: deeper ones cost stack in whatever walks them later.
const maxDepth = 64

// object is a JSON object out of a request. Its methods read one field each; a field that is absent or null gives the
// default. The first thing found wrong stays in *err, names the field, and makes every later read give its default:
// callers read all they need and look at err once.
type object struct {
	path   string // of the object itself: "" or "messages[2]"
	fields map[string][]byte
	err    *error
}

// parse reads a whole body, which must be one JSON object in valid UTF-8.
func parse(body []byte) (*object, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, invalid("", "invalid_json", "The request body is empty: send a JSON object.")
	}
	for at, rest := 0, body; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		if r == utf8.RuneError && size == 1 {
			return nil, invalid("", "invalid_json", "The request body is not valid UTF-8 at %s.", position(body, at))
		}
		at, rest = at+size, rest[size:]
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

// newObject indexes the fields of a valid JSON object.
func newObject(path string, raw []byte, err *error) *object {
	o := &object{path: path, fields: map[string][]byte{}, err: err}
	for key, value := range members(raw) {
		name := text(key)
		if _, twice := o.fields[name]; twice {
			// Parsers differ in which of the two they take, so an answer would be a guess.
			o.fail(invalid(o.join(name), "duplicate_field", "'%s' is given twice.", o.join(name)))
		}
		o.fields[name] = value
	}
	return o
}

func (o *object) fail(err error) {
	if *o.err == nil {
		*o.err = err
	}
}

func (o *object) join(name string) string {
	if o.path == "" {
		return name
	}
	return o.path + "." + name
}

// raw is the field's JSON, or nil if it is absent or null.
func (o *object) raw(name string) []byte {
	if v := o.fields[name]; *o.err == nil && string(v) != "null" {
		return v
	}
	return nil
}

func (o *object) has(name string) bool { return o.raw(name) != nil }

// wrongType records that the field is not what it must be.
func (o *object) wrongType(param string, raw []byte, want string) {
	o.fail(invalid(param, "invalid_type", "'%s' must be %s, not %s.", param, want, describe(raw)))
}

func (o *object) flag(name string, otherwise bool) bool {
	switch raw := o.raw(name); string(raw) {
	case "":
	case "true":
		return true
	case "false":
		return false
	default:
		o.wrongType(o.join(name), raw, "a boolean")
	}
	return otherwise
}

func (o *object) text(name string) string {
	raw := o.raw(name)
	if raw == nil {
		return ""
	}
	if raw[0] != '"' {
		o.wrongType(o.join(name), raw, "a string")
		return ""
	}
	return text(raw)
}

// number reads a number within [low, high].
func (o *object) number(name string, otherwise, low, high float64) float64 {
	if raw := o.raw(name); raw != nil {
		return o.parseNumber(o.join(name), raw, low, high)
	}
	return otherwise
}

func (o *object) parseNumber(param string, raw []byte, low, high float64) float64 {
	if !isNumber(raw) {
		o.wrongType(param, raw, "a number")
		return 0
	}
	// A number too large for float64 parses as infinity, which is out of every range.
	v, _ := strconv.ParseFloat(string(raw), 64)
	if !(v >= low && v <= high) {
		o.fail(invalid(param, "invalid_value", "'%s' must be between %v and %v, not %s.", param, low, high, abridge(raw)))
		return 0
	}
	return v
}

// integer reads an integer within [low, high].
func (o *object) integer(name string, otherwise, low, high int) int {
	if raw := o.raw(name); raw != nil {
		return o.parseInteger(o.join(name), raw, low, high)
	}
	return otherwise
}

func (o *object) parseInteger(param string, raw []byte, low, high int) int {
	if !isNumber(raw) {
		o.wrongType(param, raw, "an integer")
		return 0
	}
	v, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		// Some languages have no integers and write 16.0 or 1e3.
		f, _ := strconv.ParseFloat(string(raw), 64)
		if f != math.Trunc(f) {
			o.wrongType(param, raw, "an integer")
			return 0
		}
		const exact = 1 << 53
		v = int64(min(max(f, -exact), exact))
		if math.Abs(f) > exact {
			v, low, high = 0, max(low, -exact), min(high, exact)
			o.outside(param, raw, low, high)
			return 0
		}
	}
	if v < int64(low) || v > int64(high) {
		o.outside(param, raw, low, high)
		return 0
	}
	return int(v)
}

func (o *object) outside(param string, raw []byte, low, high int) {
	if high == math.MaxInt {
		o.fail(invalid(param, "invalid_value", "'%s' must be at least %d, not %s.", param, low, abridge(raw)))
		return
	}
	o.fail(invalid(param, "invalid_value", "'%s' must be between %d and %d, not %s.", param, low, high, abridge(raw)))
}

// object reads an object; nil if there is none.
func (o *object) object(name string) *object {
	raw := o.raw(name)
	if raw == nil {
		return nil
	}
	return o.parseObject(o.join(name), raw)
}

func (o *object) parseObject(param string, raw []byte) *object {
	if raw[0] != '{' {
		o.wrongType(param, raw, "an object")
		return nil
	}
	return newObject(param, raw, o.err)
}

// array reads an array of at most most elements, which are given with their own names; nil if there is none.
func (o *object) array(name string, most int) []element {
	raw := o.raw(name)
	if raw == nil {
		return nil
	}
	if raw[0] != '[' {
		o.wrongType(o.join(name), raw, "an array")
		return nil
	}
	return o.elements(o.join(name), raw, most)
}

type element struct {
	param string // "stop[1]"
	raw   []byte
}

func (o *object) elements(param string, raw []byte, most int) []element {
	list := []element{}
	for _, value := range members(raw) {
		if len(list) == most {
			o.fail(invalid(param, "array_above_max_length", "'%s' has more than %d elements.", param, most))
			return nil
		}
		list = append(list, element{param + "[" + strconv.Itoa(len(list)) + "]", value})
	}
	return list
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
