package template

import "fmt"

// expression writes an expression for the library. One with commas outside of brackets is a tuple.
func expression(t []tok) (string, error) {
	out, err := rewriteTokens(t)
	if err != nil {
		return "", err
	}
	if topLevel(t, func(t tok) bool { return t.is(",") }) >= 0 {
		return "( " + emit(out) + " )", nil
	}
	return emit(out), nil
}

func operator(text string) tok { return tok{tokOperator, text} }
func called(name string) []tok { return []tok{operator("|"), {tokName, name}} }

// rewriteTokens goes through an expression from left to right. It needs no grammar but this: whatever it replaces binds to
// the operand just before, as a filter does.
func rewriteTokens(t []tok) ([]tok, error) {
	var out []tok
	products := map[int]bool{} // the places of * that became filters
	for i := 0; i < len(t); {
		token := t[i]
		afterOperand := i > 0 && endsOperand(t[i-1])
		switch {
		case token.kind == tokName && (token.text == "daisy_" || len(token.text) > 6 && token.text[:6] == "daisy_"):
			return nil, fmt.Errorf("the name %q is kept for other use", token.text)

		case token.is("|") && i+1 < len(t) && t[i+1].kind == tokName:
			name := t[i+1].text
			if replacesFilter(name) {
				name = "daisy_" + name
			}
			out = append(out, called(name)...)
			i += 2

		case token.is(".") && i+2 < len(t) && t[i+1].kind == tokName && t[i+2].is("(") && replacesMethod(t[i+1].text):
			out = append(out, called("daisy_"+t[i+1].text)...)
			i += 2

		case token.is("[") && afterOperand:
			end := i + closing(t[i:])
			index, err := subscript(t[i+1 : end])
			if err != nil {
				return nil, err
			}
			out = append(out, index...)
			i = end + 1

		case token.is("*") && afterOperand && i+1 < len(t) && bindsTighter(t, i, products):
			products[i] = true
			end := i + 1 + operandLength(t[i+1:])
			factor, err := rewriteTokens(t[i+1 : end])
			if err != nil {
				return nil, err
			}
			out = append(append(append(out, called("daisy_times")...), operator("(")), factor...)
			out = append(out, operator(")"))
			i = end

		case token.kind == tokName && token.text == "is":
			test, n, err := test(t[i:])
			if err != nil {
				return nil, err
			}
			out = append(out, test...)
			i += n

		case opens(token):
			end := i + closing(t[i:])
			inside, err := rewriteTokens(t[i+1 : end])
			if err != nil {
				return nil, err
			}
			out = append(append(append(out, token), inside...), t[end])
			i = end + 1

		default:
			out = append(out, token)
			i++
		}
	}
	return out, nil
}

// bindsTighter says whether the product at t[i] may become a filter of the operand before it, which would bind tighter: not
// if that operand is already divided, or raised, or a divisor. products are those before that became filters.
func bindsTighter(t []tok, i int, products map[int]bool) bool {
	before := operandStart(t, i) - 1
	if before < 0 || t[before].kind != tokOperator {
		return true
	}
	switch t[before].text {
	case "*":
		return products[before]
	case "/", "//", "%", "**":
		return false
	}
	return true
}

// operandStart finds where the operand that ends before t[end] begins, signs left out.
func operandStart(t []tok, end int) int {
	i := end - 1
	for {
		if closes(t[i]) {
			for depth := 0; i > 0; i-- {
				if closes(t[i]) {
					depth++
				} else if opens(t[i]) {
					if depth--; depth == 0 {
						break
					}
				}
			}
			if i == 0 || !endsOperand(t[i-1]) {
				return i
			}
			i--
			continue
		}
		if i < 2 || !t[i-1].is(".") && !t[i-1].is("|") {
			return i
		}
		i -= 2
	}
}

// endsOperand says whether an operand may end with the token, so that a bracket after it belongs to it.
func endsOperand(t tok) bool {
	switch t.kind {
	case tokString, tokNumber:
		return true
	case tokName:
		return !isKeyword(t.text)
	}
	return closes(t)
}

func isKeyword(name string) bool {
	switch name {
	case "and", "or", "not", "in", "is", "if", "else":
		return true
	}
	return false
}

// operandLength measures the operand that t begins with: signs, a name, literal or bracket, and what hangs on it.
func operandLength(t []tok) int {
	i := 0
	for i < len(t) && (t[i].is("-") || t[i].is("+")) {
		i++
	}
	if i < len(t) {
		if opens(t[i]) {
			i += closing(t[i:])
		}
		i++
	}
	for i < len(t) {
		switch {
		case (t[i].is(".") || t[i].is("|")) && i+1 < len(t):
			i += 2
		case t[i].is("(") || t[i].is("["):
			i += closing(t[i:]) + 1
		case t[i].is("**") && i+1 < len(t):
			i += 1 + operandLength(t[i+1:])
		default:
			return i
		}
	}
	return i
}

// subscript writes what stands in brackets after an operand: an index as it is, a slice as a filter.
func subscript(t []tok) ([]tok, error) {
	parts := splitTop(t, ":")
	if len(parts) == 1 {
		inside, err := rewriteTokens(t)
		if err != nil {
			return nil, err
		}
		return append(append([]tok{operator("[")}, inside...), operator("]")), nil
	}
	if len(parts) > 3 {
		return nil, fmt.Errorf("a slice of %d parts", len(parts))
	}
	out := append(called("daisy_slice"), operator("("))
	for i, part := range parts {
		inside, err := rewriteTokens(part)
		if err != nil {
			return nil, err
		}
		if len(inside) == 0 {
			inside = []tok{{tokName, "none"}}
		}
		if i > 0 {
			out = append(out, operator(","))
		}
		out = append(out, inside...)
	}
	return append(out, operator(")")), nil
}

// test writes "is [not] name argument", the argument in brackets as the library wants it, and says how many tokens it took.
func test(t []tok) (out []tok, n int, err error) {
	out, n = []tok{t[0]}, 1
	if n < len(t) && t[n].kind == tokName && t[n].text == "not" {
		out, n = append(out, t[n]), n+1
	}
	if n == len(t) || t[n].kind != tokName && !t[n].is("==") && !t[n].is("!=") {
		return nil, 0, fmt.Errorf("is without a test")
	}
	out, n = append(out, t[n]), n+1
	if n == len(t) || t[n].is("(") {
		return out, n, nil
	}
	if next := t[n]; !(endsOperand(next) && !closes(next)) && !next.is("[") && !next.is("{") {
		return out, n, nil
	}
	length := operandLength(t[n:])
	argument, err := rewriteTokens(t[n : n+length])
	if err != nil {
		return nil, 0, err
	}
	out = append(append(append(out, operator("(")), argument...), operator(")"))
	return out, n + length, nil
}
