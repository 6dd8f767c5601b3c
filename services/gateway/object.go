package gateway

import (
	"math"
	"strconv"
)

// object is a JSON object out of a request. Its methods read one field each; a field that is absent or null gives the
// default. The first thing found wrong stays in *err, names the field, and makes every later read give its default:
// callers read all they need and look at err once.
type object struct {
	path   string // of the object itself: "" or "messages[2]"
	fields map[string][]byte
	err    *error
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
