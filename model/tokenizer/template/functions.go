package template

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ardanlabs/jinja"
)

// call is one call of a function, filter or method from a template. For the latter two, what they are applied to comes
// first.
type call struct {
	args   []jinja.Value
	kwargs map[string]jinja.Value
	b      *budget
}

// arg gives an argument by its place or else its name.
func (c call) arg(i int, name string) (jinja.Value, bool) {
	if i < len(c.args) {
		return c.args[i], true
	}
	v, ok := c.kwargs[name]
	return v, ok && !v.IsUndefined()
}

// text gives an argument as a string; what is missing is "".
func (c call) text(i int, name string) string {
	v, ok := c.arg(i, name)
	if !ok || v.IsNone() {
		return ""
	}
	s, err := str(v)
	if err != nil {
		return ""
	}
	return s
}

// number gives an argument as an integer.
func (c call) number(i int, name string, otherwise int) int {
	if v, ok := c.arg(i, name); ok && v.IsInt() {
		return int(max(min(v.AsInt(), 1<<40), -1<<40))
	}
	return otherwise
}

func (c call) truth(i int, name string) bool {
	v, ok := c.arg(i, name)
	return ok && v.IsTruthy()
}

// items gives what iterating over an argument gives.
func (c call) items(i int) ([]jinja.Value, error) {
	v, _ := c.arg(i, "")
	var items []jinja.Value
	switch {
	case v.IsList():
		items = v.AsList().Items
	case v.IsDict():
		for _, key := range v.AsDict().Keys {
			items = append(items, jinja.NewString(key))
		}
	case v.IsString():
		if err := c.b.do(len(v.AsString())); err != nil {
			return nil, err
		}
		for _, r := range v.AsString() {
			items = append(items, jinja.NewString(string(r)))
		}
	case v.IsUndefined():
	default:
		return nil, fmt.Errorf("%s is nothing to iterate over", v)
	}
	return items, c.b.do(len(items))
}

func textValue(s string, err error) (jinja.Value, error) {
	if err == nil {
		err = fits(len(s))
	}
	return jinja.NewString(s), err
}

func textList(texts []string) jinja.Value {
	list := make([]jinja.Value, len(texts))
	for i, s := range texts {
		list[i] = jinja.NewString(s)
	}
	return jinja.NewList(list)
}

// provide puts the functions that the rewritten template calls among its variables.
func (t *Template) provide(data map[string]jinja.Value, b *budget) {
	set := func(name string, f func(c call) (jinja.Value, error)) {
		data[name] = jinja.NewCallable(name, func(args []jinja.Value, kwargs map[string]jinja.Value) (jinja.Value, error) {
			if err := b.time(); err != nil {
				return jinja.None(), err
			}
			return f(call{args, kwargs, b})
		})
	}
	nothing := func(err error) (jinja.Value, error) { return jinja.None(), err }
	set("daisy_text", func(c call) (jinja.Value, error) {
		text := t.texts[c.number(0, "", 0)]
		return jinja.NewString(text), b.write(len(text))
	})
	set("daisy_out", func(c call) (jinja.Value, error) {
		text, err := str(c.args[0])
		if err != nil {
			return jinja.None(), err
		}
		return jinja.NewString(text), b.write(len(text))
	})
	set("daisy_step", func(call) (jinja.Value, error) { return nothing(b.step()) })
	set("daisy_enter", func(call) (jinja.Value, error) { return nothing(b.enter()) })
	set("daisy_leave", func(call) (jinja.Value, error) { b.leave(); return nothing(nil) })
	set("daisy_each", func(c call) (jinja.Value, error) {
		items, err := c.items(0)
		return jinja.NewList(items), err
	})
	set("daisy_keep", func(c call) (jinja.Value, error) {
		if len(c.args) > 1 && c.args[1].IsDict() { // an attribute of a namespace
			return c.args[0], b.put(c.args[0], c.args[1].AsDict())
		}
		_, err := b.measure(c.args[0])
		return c.args[0], err
	})
	set("raise_exception", func(c call) (jinja.Value, error) {
		return jinja.None(), &RaisedError{c.text(0, "message")}
	})
	set("strftime_now", func(c call) (jinja.Value, error) {
		return jinja.NewString(strftime(t.now(), c.text(0, "format"))), nil
	})
	set("range", rangeOf)
	set("namespace", dictionary)
	set("dict", dictionary)
	for _, name := range filterNames() {
		set("daisy_"+name, filterOf(name))
	}
	for _, name := range methodNames() {
		set("daisy_"+name, filterOf(name))
	}
	set("daisy_slice", slice)
	set("daisy_times", times)
}

// dictionary makes a dictionary or namespace. The library does not tell in which order the names were written; so they are
// sorted, to be the same each time.
func dictionary(c call) (jinja.Value, error) {
	v := jinja.NewDict()
	if len(c.args) > 0 && c.args[0].IsDict() {
		for _, key := range c.args[0].AsDict().Keys {
			v.AsDict().Set(key, c.args[0].AsDict().Data[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.kwargs)) {
		v.AsDict().Set(key, c.kwargs[key])
	}
	return v, nil
}

// filterNames are the filters that differ from Python's in the library, or are not bounded there.
func filterNames() []string {
	return []string{"tojson", "string", "first", "last", "list", "join", "replace", "indent", "map", "select", "reject",
		"selectattr", "rejectattr", "sort", "items", "trim"}
}

// methodNames are such methods. Those of strings come with the filters of the same name, which take the same arguments.
func methodNames() []string {
	return []string{"split", "rsplit", "splitlines", "strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "append", "insert",
		"update", "replace", "format"}
}

func replacesFilter(name string) bool { return slices.Contains(filterNames(), name) }
func replacesMethod(name string) bool {
	return name == "join" || slices.Contains(methodNames(), name)
}

// filterOf gives the function of a filter or method.
func filterOf(name string) func(call) (jinja.Value, error) {
	switch name {
	case "tojson":
		return toJSON
	case "string":
		return func(c call) (jinja.Value, error) { return textValue(str(c.args[0])) }
	case "first", "last":
		return func(c call) (jinja.Value, error) {
			items, err := c.items(0)
			if err != nil || len(items) == 0 {
				return jinja.Undefined(), err
			}
			if name == "first" {
				return items[0], nil
			}
			return items[len(items)-1], nil
		}
	case "list":
		return func(c call) (jinja.Value, error) {
			items, err := c.items(0)
			return jinja.NewList(slices.Clone(items)), err
		}
	case "items":
		return func(c call) (jinja.Value, error) {
			if c.args[0].IsUndefined() {
				return jinja.NewList(nil), nil
			}
			if !c.args[0].IsDict() {
				return jinja.None(), fmt.Errorf("items of %s, which is no dictionary", c.args[0])
			}
			var items []jinja.Value
			for _, key := range c.args[0].AsDict().Keys {
				items = append(items, jinja.NewList([]jinja.Value{jinja.NewString(key), c.args[0].AsDict().Data[key]}))
			}
			return jinja.NewList(items), c.b.do(len(items))
		}
	case "join":
		return join
	case "replace":
		return replace
	case "indent":
		return indent
	case "format":
		return format
	case "map":
		return mapItems
	case "select", "selectattr":
		return choose(name == "selectattr", true)
	case "reject", "rejectattr":
		return choose(name == "rejectattr", false)
	case "sort":
		return sortItems
	case "split", "rsplit":
		return func(c call) (jinja.Value, error) { return split(c, name == "rsplit") }
	case "splitlines":
		return func(c call) (jinja.Value, error) {
			var lines []string
			for line := range strings.Lines(strings.ReplaceAll(c.text(0, ""), "\r\n", "\n")) {
				lines = append(lines, strings.TrimSuffix(line, "\n"))
			}
			return textList(lines), c.b.do(len(lines))
		}
	case "trim", "strip":
		return func(c call) (jinja.Value, error) { return strip(c, true, true), nil }
	case "lstrip":
		return func(c call) (jinja.Value, error) { return strip(c, true, false), nil }
	case "rstrip":
		return func(c call) (jinja.Value, error) { return strip(c, false, true), nil }
	case "removeprefix":
		return func(c call) (jinja.Value, error) {
			return jinja.NewString(strings.TrimPrefix(c.text(0, ""), c.text(1, ""))), nil
		}
	case "removesuffix":
		return func(c call) (jinja.Value, error) {
			return jinja.NewString(strings.TrimSuffix(c.text(0, ""), c.text(1, ""))), nil
		}
	case "append", "insert", "update":
		return func(c call) (jinja.Value, error) { return jinja.None(), change(c, name) }
	}
	return nil
}
