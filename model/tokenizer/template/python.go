package template

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ardanlabs/jinja"
)

// decode reads JSON with the order of its keys.
func decode(raw json.RawMessage) (jinja.Value, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := decodeValue(d, 0)
	if err != nil {
		return v, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, errors.New("more than one JSON value")
	}
	return v, nil
}

func decodeValue(d *json.Decoder, depth int) (jinja.Value, error) {
	if depth > maxDepth {
		return jinja.None(), fmt.Errorf("JSON of more than %d levels", maxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return jinja.None(), fmt.Errorf("not JSON: %w", err)
	}
	switch token := token.(type) {
	case json.Delim:
		if token == '[' {
			items := []jinja.Value{}
			for d.More() {
				item, err := decodeValue(d, depth+1)
				if err != nil {
					return item, err
				}
				items = append(items, item)
			}
			_, err := d.Token()
			return jinja.NewList(items), err
		}
		v := jinja.NewDict()
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return v, fmt.Errorf("not JSON: %w", err)
			}
			item, err := decodeValue(d, depth+1)
			if err != nil {
				return item, err
			}
			v.AsDict().Set(key.(string), item)
		}
		_, err := d.Token()
		return v, err
	case json.Number:
		if n, err := token.Int64(); err == nil {
			return jinja.NewInt(n), nil
		}
		f, err := token.Float64()
		if err != nil {
			return jinja.None(), fmt.Errorf("the number %.30s is too large", token)
		}
		return jinja.NewFloat(f), nil
	case string:
		return jinja.NewString(token), nil
	case bool:
		return jinja.NewBool(token), nil
	}
	return jinja.None(), nil
}

// layout is how JSON is set.
type layout struct {
	item, key string // separators
	indent    string // of a level; breaks says whether there are lines at all
	breaks    bool
	sorted    bool
}

// encode writes a value as Python's json.dumps does, without escaping what is not ASCII.
func encode(b *strings.Builder, v jinja.Value, l *layout, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("tojson: more than %d levels", maxDepth)
	}
	if err := fits(b.Len()); err != nil {
		return err
	}
	line := func(depth int) {
		if l.breaks {
			b.WriteByte('\n')
			b.WriteString(strings.Repeat(l.indent, depth))
		}
	}
	switch {
	case v.IsNone():
		b.WriteString("null")
	case v.IsBool():
		b.WriteString(strconv.FormatBool(v.AsBool()))
	case v.IsInt():
		b.WriteString(strconv.FormatInt(v.AsInt(), 10))
	case v.IsFloat():
		b.WriteString(strings.NewReplacer("inf", "Infinity", "nan", "NaN").Replace(float(v.AsFloat())))
	case v.IsString():
		encodeString(b, v.AsString())
	case v.IsList():
		items := v.AsList().Items
		b.WriteByte('[')
		for i, item := range items {
			if i > 0 {
				b.WriteString(l.item)
			}
			line(depth + 1)
			if err := encode(b, item, l, depth+1); err != nil {
				return err
			}
		}
		if len(items) > 0 {
			line(depth)
		}
		b.WriteByte(']')
	case v.IsDict():
		keys := v.AsDict().OrderedKeys()
		if l.sorted {
			slices.Sort(keys)
		}
		b.WriteByte('{')
		for i, key := range keys {
			if i > 0 {
				b.WriteString(l.item)
			}
			line(depth + 1)
			encodeString(b, key)
			b.WriteString(l.key)
			if err := encode(b, v.AsDict().Data[key], l, depth+1); err != nil {
				return err
			}
		}
		if len(keys) > 0 {
			line(depth)
		}
		b.WriteByte('}')
	default:
		return fmt.Errorf("tojson: %s cannot be written as JSON", v)
	}
	return nil
}

func encodeString(b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch r {
		case '"':
			b.WriteString(`\"`)
		case '\\':
			b.WriteString(`\\`)
		case '\n':
			b.WriteString(`\n`)
		case '\r':
			b.WriteString(`\r`)
		case '\t':
			b.WriteString(`\t`)
		case '\b':
			b.WriteString(`\b`)
		case '\f':
			b.WriteString(`\f`)
		default:
			if r < ' ' {
				fmt.Fprintf(b, `\u%04x`, r)
				continue
			}
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

// str is Python's str().
func str(v jinja.Value) (string, error) {
	switch {
	case v.IsString():
		return v.AsString(), nil
	case v.IsUndefined():
		return "", nil
	}
	var b strings.Builder
	if err := repr(&b, v, 0); err != nil {
		return "", err
	}
	return b.String(), nil
}

// repr writes what Python's repr() gives.
func repr(b *strings.Builder, v jinja.Value, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("a value of more than %d levels", maxDepth)
	}
	if err := fits(b.Len()); err != nil {
		return err
	}
	switch {
	case v.IsString():
		reprString(b, v.AsString())
	case v.IsFloat():
		b.WriteString(float(v.AsFloat()))
	case v.IsList():
		b.WriteByte('[')
		for i, item := range v.AsList().Items {
			if i > 0 {
				b.WriteString(", ")
			}
			if err := repr(b, item, depth+1); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	case v.IsDict():
		b.WriteByte('{')
		for i, key := range v.AsDict().Keys {
			if i > 0 {
				b.WriteString(", ")
			}
			reprString(b, key)
			b.WriteString(": ")
			if err := repr(b, v.AsDict().Data[key], depth+1); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	default:
		b.WriteString(v.String())
	}
	return nil
}

func reprString(b *strings.Builder, s string) {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b.WriteByte(quote)
	for i, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsPrint(r):
			_, size := utf8.DecodeRuneInString(s[i:])
			b.WriteString(s[i : i+size])
		case r < 0x100:
			fmt.Fprintf(b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			fmt.Fprintf(b, `\U%08x`, r)
		}
	}
	b.WriteByte(quote)
}

// float is Python's repr() of a float: the shortest that reads back, with an exponent below 1e-4 and from 1e16 on.
func float(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case math.IsNaN(f):
		return "nan"
	}
	if size := math.Abs(f); f != 0 && (size < 1e-4 || size >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64) // two digits of exponent, as in Python
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
