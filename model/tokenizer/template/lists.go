package template

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ardanlabs/jinja"
)

func rangeOf(c call) (jinja.Value, error) {
	start, stop, step := 0, c.number(0, "", 0), c.number(2, "", 1)
	if len(c.args) > 1 {
		start, stop = stop, c.number(1, "", 0)
	}
	if step == 0 {
		return jinja.None(), fmt.Errorf("range: the step is 0")
	}
	count := 0
	if step > 0 && stop > start {
		count = (stop - start + step - 1) / step
	} else if step < 0 && stop < start {
		count = (start - stop - step - 1) / -step
	}
	if err := c.b.do(count); err != nil {
		return jinja.None(), err
	}
	items := make([]jinja.Value, 0, min(count, 1<<12))
	for i := range count {
		items = append(items, jinja.NewInt(int64(start+i*step)))
	}
	return jinja.NewList(items), nil
}

// slice is Python's x[start:stop:step].
func slice(c call) (jinja.Value, error) {
	v := c.args[0]
	var items []jinja.Value
	var chars []rune
	n := 0
	switch {
	case v.IsList():
		items = v.AsList().Items
		n = len(items)
	case v.IsString():
		chars = []rune(v.AsString())
		n = len(chars)
	case v.IsUndefined():
		return v, nil
	default:
		return v, fmt.Errorf("a slice of %s", v)
	}
	step := c.number(3, "", 1)
	if step == 0 {
		return v, fmt.Errorf("a slice whose step is 0")
	}
	low, high := 0, n
	start, stop := 0, n
	if step < 0 {
		low, high = -1, n-1
		start, stop = n-1, -1
	}
	bound := func(i, otherwise int) int {
		at := c.number(i, "", 1<<41)
		if at == 1<<41 {
			return otherwise
		}
		if at < 0 {
			at += n
		}
		return max(low, min(at, high))
	}
	start, stop = bound(1, start), bound(2, stop)
	var outItems []jinja.Value
	var outChars []rune
	for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
		if items != nil {
			outItems = append(outItems, items[i])
		} else if chars != nil {
			outChars = append(outChars, chars[i])
		}
	}
	if err := c.b.do(len(outItems) + len(outChars)); err != nil {
		return v, err
	}
	if v.IsString() {
		return jinja.NewString(string(outChars)), nil
	}
	return jinja.NewList(outItems), nil
}

// times is Python's a * b.
func times(c call) (jinja.Value, error) {
	a, n := c.args[0], c.args[1]
	if n.IsString() || n.IsList() {
		a, n = n, a
	}
	count := 0
	if n.IsInt() && n.AsInt() > 0 {
		count = int(min(n.AsInt(), maxValue+1))
	}
	switch {
	case a.IsString():
		if err := fits(len(a.AsString()) * count); err != nil {
			return a, err
		}
		return jinja.NewString(strings.Repeat(a.AsString(), count)), nil
	case a.IsList():
		size := len(a.AsList().Items) * count
		if err := c.b.do(size); err != nil {
			return a, err
		}
		return jinja.NewList(slices.Repeat(a.AsList().Items, count)), nil
	case a.IsInt() && n.IsInt():
		return jinja.NewInt(a.AsInt() * n.AsInt()), nil
	case a.IsNumber() && n.IsNumber():
		number := func(v jinja.Value) float64 {
			if v.IsInt() {
				return float64(v.AsInt())
			}
			return v.AsFloat()
		}
		return jinja.NewFloat(number(a) * number(n)), nil
	}
	return a, fmt.Errorf("%s times %s", c.args[0], c.args[1])
}

// change is a method that changes a list or dictionary.
func change(c call, name string) error {
	v := c.args[0]
	switch {
	case name == "update" && v.IsDict():
		if len(c.args) < 2 || !c.args[1].IsDict() {
			return fmt.Errorf("update without a dictionary")
		}
		if err := c.b.put(c.args[1], v.AsDict()); err != nil {
			return err
		}
		for _, key := range c.args[1].AsDict().OrderedKeys() {
			v.AsDict().Set(key, c.args[1].AsDict().Data[key])
		}
		return nil
	case v.IsList() && len(c.args) > 1 && name != "update":
		item := c.args[len(c.args)-1]
		if err := c.b.put(item, v.AsList()); err != nil {
			return err
		}
		at := len(v.AsList().Items)
		if name == "insert" {
			if at = c.number(1, "", 0); at < 0 {
				at += len(v.AsList().Items)
			}
			at = max(0, min(at, len(v.AsList().Items)))
		}
		v.AsList().Items = slices.Insert(v.AsList().Items, at, item)
		return nil
	}
	return fmt.Errorf("%s of %s", name, v)
}

// attributeOf gives item.name, for a name with dots too.
func attributeOf(item, name jinja.Value) jinja.Value {
	if !name.IsString() {
		return jinja.Undefined()
	}
	for part := range strings.SplitSeq(name.AsString(), ".") {
		if !item.IsDict() {
			return jinja.Undefined()
		}
		v, ok := item.AsDict().Get(part)
		if !ok {
			return jinja.Undefined()
		}
		item = v
	}
	return item
}

func mapItems(c call) (jinja.Value, error) {
	items, err := c.items(0)
	if err != nil {
		return jinja.None(), err
	}
	out := make([]jinja.Value, len(items))
	attribute, hasAttribute := c.kwargs["attribute"]
	for i, item := range items {
		switch {
		case hasAttribute:
			out[i] = attributeOf(item, attribute)
			if otherwise, ok := c.kwargs["default"]; ok && out[i].IsUndefined() {
				out[i] = otherwise
			}
		case len(c.args) > 1:
			name := c.text(1, "")
			one := call{append([]jinja.Value{item}, c.args[2:]...), nil, c.b}
			switch {
			case name == "upper":
				out[i] = jinja.NewString(strings.ToUpper(one.text(0, "")))
			case name == "lower":
				out[i] = jinja.NewString(strings.ToLower(one.text(0, "")))
			case name == "length":
				items, err := one.items(0)
				if err != nil {
					return jinja.None(), err
				}
				out[i] = jinja.NewInt(int64(len(items)))
			case replacesFilter(name) && name != "map":
				if out[i], err = filterOf(name)(one); err != nil {
					return jinja.None(), err
				}
			default:
				return jinja.None(), fmt.Errorf("map: the filter %q is not supported", name)
			}
		default:
			return jinja.None(), fmt.Errorf("map without a filter")
		}
	}
	return jinja.NewList(out), nil
}

// choose is select, selectattr, and their opposites.
func choose(byAttribute, keep bool) func(call) (jinja.Value, error) {
	return func(c call) (jinja.Value, error) {
		items, err := c.items(0)
		if err != nil {
			return jinja.None(), err
		}
		rest := c.args[1:]
		var attribute jinja.Value
		if byAttribute {
			if len(rest) == 0 {
				return jinja.None(), fmt.Errorf("selectattr without an attribute")
			}
			attribute, rest = rest[0], rest[1:]
		}
		var out []jinja.Value
		for _, item := range items {
			v := item
			if byAttribute {
				v = attributeOf(item, attribute)
			}
			ok := v.IsTruthy()
			if len(rest) > 0 {
				name := call{args: rest}.text(0, "")
				if ok, err = passes(v, name, rest[1:]); err != nil {
					return jinja.None(), err
				}
			}
			if ok == keep {
				out = append(out, item)
			}
		}
		return jinja.NewList(out), nil
	}
}

// passes runs a test by its name.
func passes(v jinja.Value, name string, args []jinja.Value) (bool, error) {
	one := func(f func(jinja.Value) bool) (bool, error) {
		if len(args) == 0 {
			return false, fmt.Errorf("the test %q needs an argument", name)
		}
		return f(args[0]), nil
	}
	switch name {
	case "defined":
		return !v.IsUndefined(), nil
	case "undefined":
		return v.IsUndefined(), nil
	case "none":
		return v.IsNone(), nil
	case "string":
		return v.IsString(), nil
	case "number":
		return v.IsNumber(), nil
	case "mapping":
		return v.IsDict(), nil
	case "iterable", "sequence":
		return v.IsList() || v.IsDict() || v.IsString(), nil
	case "true":
		return v.IsBool() && v.AsBool(), nil
	case "false":
		return v.IsBool() && !v.AsBool(), nil
	case "equalto", "eq", "==", "sameas":
		return one(v.Equals)
	case "ne", "!=":
		return one(func(w jinja.Value) bool { return !v.Equals(w) })
	case "in":
		return one(func(w jinja.Value) bool {
			switch {
			case w.IsList():
				return slices.ContainsFunc(w.AsList().Items, v.Equals)
			case w.IsDict():
				return v.IsString() && w.AsDict().Has(v.AsString())
			}
			return w.IsString() && v.IsString() && strings.Contains(w.AsString(), v.AsString())
		})
	}
	return false, fmt.Errorf("the test %q is not supported", name)
}

func sortItems(c call) (jinja.Value, error) {
	items, err := c.items(0)
	if err != nil {
		return jinja.None(), err
	}
	items = slices.Clone(items)
	attribute, hasAttribute := c.arg(3, "attribute")
	key := func(v jinja.Value) jinja.Value {
		if hasAttribute {
			return attributeOf(v, attribute)
		}
		return v
	}
	exact := c.truth(2, "case_sensitive")
	slices.SortStableFunc(items, func(a, b jinja.Value) int {
		a, b = key(a), key(b)
		order := 0
		if a.IsString() && b.IsString() {
			x, y := a.AsString(), b.AsString()
			if !exact {
				x, y = strings.ToLower(x), strings.ToLower(y)
			}
			order = strings.Compare(x, y)
		} else if a.IsNumber() && b.IsNumber() {
			order = compareNumbers(a, b)
		}
		if c.truth(1, "reverse") {
			order = -order
		}
		return order
	})
	return jinja.NewList(items), nil
}

func compareNumbers(a, b jinja.Value) int {
	number := func(v jinja.Value) float64 {
		if v.IsInt() {
			return float64(v.AsInt())
		}
		return v.AsFloat()
	}
	switch x, y := number(a), number(b); {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}
