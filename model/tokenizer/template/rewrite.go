package template

import (
	"fmt"
	"strconv"
	"strings"
)

// rewriter writes a template anew, so that the library runs it as Jinja would, and within a budget:
//
//   - text becomes {{ daisy_text(n) }}, which leaves the library no white space to trim;
//   - {{ x }} becomes {{ daisy_out(x) }}, which writes x as Python would, and counts;
//   - {% set a = x %} becomes {% set a = daisy_keep(x) %}, which looks how large x is;
//   - loops and macros begin with {% set daisy_ = daisy_step() %};
//   - what a loop's body assigns is undone at each turn, for the library keeps it from turn to turn;
//   - filters, methods, slices and products that functions.go has become filters: a.split(b) is a|daisy_split(b).
type rewriter struct {
	out   strings.Builder
	texts []string
	saved int // names made for what loops assign
}

// rewrite gives the program for the library, and the texts that it refers to by number.
func rewrite(segments []segment) (program string, texts []string, err error) {
	r := &rewriter{}
	assigned := assignments(segments)
	for i, s := range segments {
		switch s.kind {
		case segmentText:
			r.printf("{{ daisy_text(%d) }}", len(r.texts))
			r.texts = append(r.texts, s.text)
		case segmentOutput:
			var e string
			if e, err = expression(s.tokens); err == nil && e != "" {
				r.printf("{{ daisy_out( %s ) }}", e)
			}
		case segmentStatement:
			err = r.statement(s.tokens, assigned[i])
		}
		if err != nil {
			return "", nil, fmt.Errorf("line %d: %w", s.line, err)
		}
	}
	return r.out.String(), r.texts, nil
}

func (r *rewriter) printf(format string, args ...any) { fmt.Fprintf(&r.out, format, args...) }

// assignments finds, for each segment that begins a loop, the names that its body assigns, loops within excepted.
func assignments(segments []segment) map[int][]string {
	assigned := map[int][]string{}
	var open []int // the loops around, -1 for macros and the like, which have names of their own
	for i, s := range segments {
		if s.kind != segmentStatement || len(s.tokens) == 0 {
			continue
		}
		switch s.tokens[0].text {
		case "for":
			open = append(open, i)
		case "macro", "call":
			open = append(open, -1)
		case "endfor", "endmacro", "endcall":
			if len(open) > 0 {
				open = open[:len(open)-1]
			}
		case "set":
			if len(open) == 0 || open[len(open)-1] < 0 || len(s.tokens) < 2 || len(s.tokens) > 2 && s.tokens[2].is(".") {
				continue
			}
			loop := open[len(open)-1]
			assigned[loop] = append(assigned[loop], s.tokens[1].text)
		}
	}
	return assigned
}

// statement writes a {% %} tag.
func (r *rewriter) statement(t []tok, assigned []string) error {
	if len(t) == 0 || t[0].kind != tokName {
		return fmt.Errorf("a statement without a name")
	}
	name, rest := t[0].text, t[1:]
	switch name {
	case "if", "elif":
		e, err := expression(rest)
		if err != nil {
			return err
		}
		if e == "" {
			return fmt.Errorf("%s without a condition", name)
		}
		r.printf("{%% %s %s %%}", name, e)
		return nil
	case "else", "endif", "endfor", "endset", "endcall", "filter", "endfilter", "break", "continue", "generation", "endgeneration":
		r.printf("{%% %s %%}", emit(t))
		return nil
	case "for":
		return r.loop(rest, assigned)
	case "set":
		return r.assign(rest)
	case "macro":
		return r.macro(rest)
	case "endmacro":
		r.printf("{%% set daisy_ = daisy_leave() %%}{%% endmacro %%}")
		return nil
	case "call":
		e, err := expression(rest)
		r.printf("{%% call %s %%}", e)
		return err
	case "do":
		e, err := expression(rest)
		r.printf("{%% set daisy_ = %s %%}", e)
		return err
	}
	return fmt.Errorf("the statement %q is not supported", name)
}

// loop writes {% for target in iterable [if condition] %}.
func (r *rewriter) loop(t []tok, assigned []string) error {
	in := topLevel(t, func(t tok) bool { return t.kind == tokName && t.text == "in" })
	if in <= 0 {
		return fmt.Errorf("for without in")
	}
	var targets []string
	for _, target := range t[:in] {
		switch {
		case target.kind == tokName:
			targets = append(targets, target.text)
		case !target.is(",") && !target.is("(") && !target.is(")"):
			return fmt.Errorf("for has the target %q", target.text)
		}
	}
	if len(targets) == 0 || len(targets) > 2 {
		return fmt.Errorf("for has %d targets: one or two are supported", len(targets))
	}
	t = t[in+1:]
	if n := len(t); n > 0 && t[n-1].kind == tokName && t[n-1].text == "recursive" {
		return fmt.Errorf("recursive loops are not supported")
	}
	condition := ""
	if at := topLevel(t, func(t tok) bool { return t.kind == tokName && t.text == "if" }); at >= 0 {
		e, err := expression(t[at+1:])
		if err != nil {
			return err
		}
		condition, t = " if "+e, t[:at]
	}
	iterable, err := expression(t)
	if err != nil {
		return err
	}
	var restore strings.Builder
	done := map[string]bool{}
	for _, name := range targets {
		done[name] = true
	}
	for _, name := range assigned {
		if done[name] {
			continue
		}
		done[name] = true
		saved := "daisy_saved" + strconv.Itoa(r.saved)
		r.saved++
		r.printf("{%% set %s = %s %%}", saved, name)
		fmt.Fprintf(&restore, "{%% set %s = %s %%}", name, saved)
	}
	r.printf("{%% for %s in daisy_each( %s )%s %%}{%% set daisy_ = daisy_step() %%}%s", strings.Join(targets, ","), iterable, condition, restore.String())
	return nil
}

// assign writes {% set name = value %}, {% set namespace.name = value %} or {% set name %}.
func (r *rewriter) assign(t []tok) error {
	at := topLevel(t, func(t tok) bool { return t.is("=") })
	target := t
	if at >= 0 {
		target = t[:at]
	}
	var name strings.Builder
	for i, part := range target {
		if i%2 == 0 && part.kind != tokName || i%2 == 1 && !part.is(".") || i > 2 {
			return fmt.Errorf("set has the target %q", emit(target))
		}
		name.WriteString(part.text)
	}
	if len(target)%2 == 0 {
		return fmt.Errorf("set without a target")
	}
	if at < 0 {
		r.printf("{%% set %s %%}", name.String())
		return nil
	}
	value, err := expression(t[at+1:])
	if err != nil {
		return err
	}
	container := ""
	if len(target) == 3 {
		container = ", " + target[0].text
	}
	r.printf("{%% set %s = daisy_keep( %s%s ) %%}", name.String(), value, container)
	return nil
}

// macro writes {% macro name(parameter, parameter=default) %}.
func (r *rewriter) macro(t []tok) error {
	if len(t) < 3 || t[0].kind != tokName || !t[1].is("(") || !t[len(t)-1].is(")") {
		return fmt.Errorf("macro without a name or parameters")
	}
	var parameters []string
	for _, p := range splitTop(t[2:len(t)-1], ",") {
		if len(p) == 0 {
			continue
		}
		if p[0].kind != tokName || len(p) > 1 && !p[1].is("=") {
			return fmt.Errorf("macro has the parameter %q", emit(p))
		}
		parameter := p[0].text
		if len(p) > 1 {
			// The library cuts parameters at every comma, even in strings: so defaults stand elsewhere, under a name.
			e, err := expression(p[2:])
			if err != nil {
				return err
			}
			saved := "daisy_saved" + strconv.Itoa(r.saved)
			r.saved++
			r.printf("{%% set %s = daisy_keep( %s ) %%}", saved, e)
			parameter += "=" + saved
		}
		parameters = append(parameters, parameter)
	}
	r.printf("{%% macro %s(%s) %%}{%% set daisy_ = daisy_enter() %%}", t[0].text, strings.Join(parameters, ","))
	return nil
}

// emit writes tokens for the library: apart from each other, so that no two of them end a tag.
func emit(t []tok) string {
	var b strings.Builder
	for i, token := range t {
		if i > 0 {
			b.WriteByte(' ')
		}
		if token.kind == tokString {
			b.WriteString(quote(token.text))
			continue
		}
		b.WriteString(token.text)
	}
	return b.String()
}

// quote writes a string with the escapes that the library knows.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

// topLevel finds the first token outside of all brackets that is wanted, or gives -1.
func topLevel(t []tok, wanted func(tok) bool) int {
	depth := 0
	for i, token := range t {
		switch {
		case opens(token):
			depth++
		case closes(token):
			depth--
		case depth == 0 && wanted(token):
			return i
		}
	}
	return -1
}

// splitTop cuts tokens at an operator outside of all brackets.
func splitTop(t []tok, operator string) [][]tok {
	var parts [][]tok
	for {
		at := topLevel(t, func(t tok) bool { return t.is(operator) })
		if at < 0 {
			return append(parts, t)
		}
		parts = append(parts, t[:at])
		t = t[at+1:]
	}
}

func opens(t tok) bool  { return t.is("(") || t.is("[") || t.is("{") }
func closes(t tok) bool { return t.is(")") || t.is("]") || t.is("}") }

// closing finds the bracket that closes the one at t[0]. The lexer has seen to it that there is one.
func closing(t []tok) int {
	depth := 0
	for i, token := range t {
		switch {
		case opens(token):
			depth++
		case closes(token):
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return len(t) - 1
}
