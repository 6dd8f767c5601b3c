package template

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ardanlabs/jinja"
)

func toJSON(c call) (jinja.Value, error) {
	l := layout{item: ", ", key: ": ", sorted: c.truth(4, "sort_keys")}
	if v, ok := c.arg(2, "indent"); ok && !v.IsNone() {
		l.item, l.breaks, l.indent = ",", true, c.text(2, "indent")
		if v.IsInt() {
			l.indent = strings.Repeat(" ", max(0, min(c.number(2, "indent", 0), 64)))
		}
		if len(l.indent) > 64 {
			return v, fmt.Errorf("tojson: the indent is too long")
		}
	}
	if v, ok := c.arg(3, "separators"); ok && v.IsList() && v.AsList().Len() == 2 {
		pair := call{args: v.AsList().Items}
		l.item, l.key = pair.text(0, ""), pair.text(1, "")
	}
	var b strings.Builder
	err := encode(&b, c.args[0], &l, 0)
	return textValue(b.String(), err)
}

func join(c call) (jinja.Value, error) {
	list, separator := c, 1
	if c.args[0].IsString() && len(c.args) == 2 && c.args[1].IsList() {
		// The method: the separator comes first.
		list, separator = call{args: []jinja.Value{c.args[1]}, b: c.b}, 0
	}
	items, err := list.items(0)
	if err != nil {
		return jinja.None(), err
	}
	between := c.text(separator, "d")
	attribute, hasAttribute := c.kwargs["attribute"]
	var b strings.Builder
	for i, item := range items {
		if hasAttribute {
			item = attributeOf(item, attribute)
		}
		text, err := str(item)
		if err != nil {
			return jinja.None(), err
		}
		if i > 0 {
			b.WriteString(between)
		}
		b.WriteString(text)
		if err := fits(b.Len()); err != nil {
			return jinja.None(), err
		}
	}
	return jinja.NewString(b.String()), nil
}

func replace(c call) (jinja.Value, error) {
	text, from, to, count := c.text(0, ""), c.text(1, "old"), c.text(2, "new"), c.number(3, "count", -1)
	found := strings.Count(text, from)
	if count >= 0 {
		found = min(found, count)
	}
	// Not the exact length, but no less: found occurrences of from go.
	if err := fits(len(text) + found*len(to)); err != nil {
		return jinja.None(), err
	}
	return jinja.NewString(strings.Replace(text, from, to, count)), nil
}

func indent(c call) (jinja.Value, error) {
	text := c.text(0, "")
	width := strings.Repeat(" ", max(0, min(c.number(1, "width", 4), 1<<10)))
	if v, ok := c.arg(1, "width"); ok && v.IsString() {
		width = v.AsString()
	}
	first, blank := c.truth(2, "first"), c.truth(3, "blank")
	lines := strings.Split(text, "\n")
	if err := fits(len(text) + len(lines)*len(width)); err != nil {
		return jinja.None(), err
	}
	for i := range lines {
		if (i > 0 || first) && (lines[i] != "" || blank) {
			lines[i] = width + lines[i]
		}
	}
	return jinja.NewString(strings.Join(lines, "\n")), nil
}

// format is the method of strings, with {} and {0} as its only fields.
func format(c call) (jinja.Value, error) {
	text := c.text(0, "")
	var b strings.Builder
	for next := 1; ; {
		at := strings.IndexAny(text, "{}")
		if at < 0 {
			b.WriteString(text)
			return textValue(b.String(), nil)
		}
		b.WriteString(text[:at])
		if at+1 < len(text) && text[at+1] == text[at] {
			b.WriteByte(text[at])
			text = text[at+2:]
			continue
		}
		end := strings.IndexByte(text[at:], '}')
		if text[at] == '}' || end < 0 {
			return jinja.None(), fmt.Errorf("format: a bracket stands alone")
		}
		field := text[at+1 : at+end]
		text = text[at+end+1:]
		i := len(c.args) // not by place but by name
		if field == "" {
			i = next
			next++
		} else if n, err := strconv.ParseUint(field, 10, 8); err == nil {
			i = 1 + int(n)
		}
		if _, ok := c.arg(i, field); !ok {
			return jinja.None(), fmt.Errorf("format: the field %q is not supported", field)
		}
		b.WriteString(c.text(i, field))
		if err := fits(b.Len()); err != nil {
			return jinja.None(), err
		}
	}
}

func strip(c call, left, right bool) jinja.Value {
	text := c.text(0, "")
	drop := unicode.IsSpace
	if chars, ok := c.arg(1, "chars"); ok && chars.IsString() {
		drop = func(r rune) bool { return strings.ContainsRune(chars.AsString(), r) }
	}
	if left {
		text = strings.TrimLeftFunc(text, drop)
	}
	if right {
		text = strings.TrimRightFunc(text, drop)
	}
	return jinja.NewString(text)
}

func split(c call, fromRight bool) (jinja.Value, error) {
	text, most := c.text(0, ""), c.number(2, "maxsplit", -1)
	separator, ok := c.arg(1, "sep")
	var parts []string
	switch {
	case ok && separator.IsString() && separator.AsString() == "":
		return jinja.None(), fmt.Errorf("split: the separator is empty")
	case ok && separator.IsString() && fromRight && most >= 0:
		rest := text
		for ; most > 0; most-- {
			at := strings.LastIndex(rest, separator.AsString())
			if at < 0 {
				break
			}
			parts = append(parts, rest[at+len(separator.AsString()):])
			rest = rest[:at]
		}
		parts = append(parts, rest)
		slices.Reverse(parts)
	case ok && separator.IsString():
		if most >= 0 {
			most++
		}
		parts = strings.SplitN(text, separator.AsString(), most)
	case most < 0:
		parts = strings.Fields(text)
	default:
		rest := strings.TrimLeftFunc(text, unicode.IsSpace)
		for ; most > 0 && rest != ""; most-- {
			at := strings.IndexFunc(rest, unicode.IsSpace)
			if at < 0 {
				break
			}
			parts = append(parts, rest[:at])
			rest = strings.TrimLeftFunc(rest[at:], unicode.IsSpace)
		}
		if rest != "" {
			parts = append(parts, rest)
		}
	}
	return textList(parts), c.b.do(len(parts))
}

// strftime writes a time by Python's format.
func strftime(now time.Time, format string) string {
	layouts := map[byte]string{
		'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'B': "January", 'b': "Jan",
		'h': "Jan", 'A': "Monday", 'a': "Mon", 'p': "PM", 'Z': "MST", 'z': "-0700", 'F': "2006-01-02", 'T': "15:04:05", 'j': "002",
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		unpadded := format[i] == '-' && i+1 < len(format)
		if unpadded {
			i++
		}
		layout, ok := layouts[format[i]]
		switch {
		case format[i] == '%':
			b.WriteByte('%')
		case !ok:
			b.WriteByte('%')
			_, size := utf8.DecodeRuneInString(format[i:])
			b.WriteString(format[i : i+size])
			i += size - 1
		case unpadded:
			text := strings.TrimLeft(now.Format(layout), "0 ")
			if text == "" {
				text = "0"
			}
			b.WriteString(text)
		default:
			b.WriteString(now.Format(layout))
		}
	}
	return b.String()
}
