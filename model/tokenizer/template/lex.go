package template

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// Bounds on a template, which the library parses by recursion. Real ones have up to 30 kB and 10 levels of brackets.
const (
	maxSource  = 256 << 10
	maxBracket = 100
)

// segment is a stretch of a template: text, a {{ }} tag or a {% %} tag.
type segment struct {
	kind   segmentKind
	text   string // of text
	tokens []tok  // of tags
	line   int
}

type segmentKind uint8

const (
	segmentText segmentKind = iota
	segmentOutput
	segmentStatement
)

// tok is a word of a tag: a name, a number, an operator, or a string, whose text is then what it stands for.
type tok struct {
	kind tokKind
	text string
}

type tokKind uint8

const (
	tokName tokKind = iota
	tokNumber
	tokString
	tokOperator
)

func (t tok) is(operator string) bool { return t.kind == tokOperator && t.text == operator }

// lexer cuts a template by Jinja's rules, with trim_blocks and lstrip_blocks: a {% %} tag or comment swallows the line
// break after it, and the white space between the start of its line and itself; a minus sign swallows all white space on
// its side, a plus sign none.
type lexer struct {
	source    string
	at        int
	lineStart bool // source[at] begins a line, counting line breaks that were swallowed
	segments  []segment
}

var (
	rawBegin = regexp.MustCompile(`^\{%[-+]?\s*raw\s*(-?)%\}`)
	rawEnd   = regexp.MustCompile(`\{%([-+]?)\s*endraw\s*([-+]?)%\}`)
)

func lex(source string) ([]segment, error) {
	if len(source) > maxSource {
		return nil, fmt.Errorf("the template has %d bytes: at most %d are possible", len(source), maxSource)
	}
	source = strings.ReplaceAll(strings.ReplaceAll(source, "\r\n", "\n"), "\r", "\n")
	l := &lexer{source: strings.TrimSuffix(source, "\n"), lineStart: true}
	for l.at < len(l.source) {
		if err := l.next(); err != nil {
			return nil, fmt.Errorf("line %d: %w", l.line(), err)
		}
	}
	return l.segments, nil
}

func (l *lexer) line() int { return 1 + strings.Count(l.source[:l.at], "\n") }

// next reads text up to a tag, and the tag.
func (l *lexer) next() error {
	rest := l.source[l.at:]
	i := 0
	for ; ; i++ {
		if i+1 >= len(rest) {
			l.text(rest)
			l.at = len(l.source)
			return nil
		}
		if rest[i] == '{' && (rest[i+1] == '{' || rest[i+1] == '%' || rest[i+1] == '#') {
			break
		}
	}
	kind, tag := rest[i+1], rest[i+2:]
	sign := signOf(tag)
	l.text(l.before(rest[:i], sign, kind != '{'))
	l.at += i
	if kind == '%' {
		if m := rawBegin.FindStringSubmatch(rest[i:]); m != nil {
			return l.raw(rest[i+len(m[0]):], m[1])
		}
	}
	if sign != 0 {
		tag = tag[1:]
	}
	if kind == '#' {
		end := strings.Index(tag, "#}")
		if end < 0 {
			return fmt.Errorf("a comment does not end")
		}
		sign := byte(0)
		if end > 0 && (tag[end-1] == '-' || tag[end-1] == '+') {
			sign = tag[end-1]
		}
		l.at = len(l.source) - len(tag) + end + 2
		l.after(sign, true)
		return nil
	}
	line := l.line()
	tokens, end, sign, err := lexTag(tag, kind)
	if err != nil {
		return err
	}
	s := segment{kind: segmentOutput, tokens: tokens, line: line}
	if kind == '%' {
		s.kind = segmentStatement
	}
	l.segments = append(l.segments, s)
	l.at = len(l.source) - len(tag) + end
	l.after(sign, kind == '%')
	return nil
}

func signOf(s string) byte {
	if s != "" && (s[0] == '-' || s[0] == '+') {
		return s[0]
	}
	return 0
}

// raw reads what stands between the tags raw and endraw.
func (l *lexer) raw(rest, sign string) error {
	m := rawEnd.FindStringSubmatchIndex(rest)
	if m == nil {
		return fmt.Errorf("raw does not end")
	}
	text := rest[:m[0]]
	if sign == "-" {
		text = strings.TrimLeftFunc(text, unicode.IsSpace)
	}
	l.lineStart = false
	l.text(l.before(text, signOf(rest[m[2]:m[3]]), true))
	l.at = len(l.source) - len(rest) + m[1]
	l.after(signOf(rest[m[4]:m[5]]), true)
	return nil
}

// before gives what is left of the text before a tag.
func (l *lexer) before(text string, sign byte, block bool) string {
	if sign == '-' {
		return strings.TrimRightFunc(text, unicode.IsSpace)
	}
	if sign == 0 && block {
		if start := strings.LastIndexByte(text, '\n') + 1; start > 0 || l.lineStart {
			if strings.TrimSpace(text[start:]) == "" {
				return text[:start]
			}
		}
	}
	return text
}

// after swallows white space after a tag, which ends at l.at.
func (l *lexer) after(sign byte, block bool) {
	rest := l.source[l.at:]
	switch {
	case sign == '-':
		rest = strings.TrimLeftFunc(rest, unicode.IsSpace)
	case sign == 0 && block:
		rest = strings.TrimPrefix(rest, "\n")
	}
	end := len(l.source) - len(rest)
	l.lineStart = end > l.at && l.source[end-1] == '\n'
	l.at = end
}

func (l *lexer) text(text string) {
	if text != "" {
		l.segments = append(l.segments, segment{kind: segmentText, text: text})
	}
}

// lexTag reads the words of a tag of the kind '{' or '%', given without its beginning, and finds where it ends.
func lexTag(tag string, kind byte) (tokens []tok, end int, sign byte, err error) {
	closer := "%}"
	if kind == '{' {
		closer = "}}"
	}
	var open []byte
	for i := 0; i < len(tag); {
		rest := tag[i:]
		if len(open) == 0 {
			if strings.HasPrefix(rest, closer) {
				return tokens, i + 2, 0, nil
			}
			if s := signOf(rest); (s == '-' || s == '+' && kind == '%') && strings.HasPrefix(rest[1:], closer) {
				return tokens, i + 3, s, nil
			}
		}
		c := rest[0]
		switch {
		case c == ' ' || c == '\t' || c == '\n':
			i++
			continue
		case c == '\'' || c == '"':
			text, size, err := lexString(rest)
			if err != nil {
				return nil, 0, 0, err
			}
			if n := len(tokens); n > 0 && tokens[n-1].kind == tokString {
				tokens[n-1].text += text // as in Python, strings side by side are one
			} else {
				tokens = append(tokens, tok{tokString, text})
			}
			i += size
			continue
		case isName(c) && !isDigit(c):
			size := 1
			for size < len(rest) && isName(rest[size]) {
				size++
			}
			tokens = append(tokens, tok{tokName, rest[:size]})
			i += size
			continue
		case isDigit(c):
			text, size, err := lexNumber(rest)
			if err != nil {
				return nil, 0, 0, err
			}
			tokens = append(tokens, tok{tokNumber, text})
			i += size
			continue
		}
		size := 1
		if len(rest) > 1 {
			switch rest[:2] {
			case "**", "//", "==", "!=", "<=", ">=":
				size = 2
			}
		}
		switch c {
		case '(', '[', '{':
			if open = append(open, c); len(open) > maxBracket {
				return nil, 0, 0, fmt.Errorf("more than %d brackets within each other", maxBracket)
			}
		case ')', ']', '}':
			if len(open) == 0 || open[len(open)-1] != opening(c) {
				return nil, 0, 0, fmt.Errorf("unexpected %q", c)
			}
			open = open[:len(open)-1]
		default:
			if size == 1 && !strings.ContainsRune("+-*/%~<>=.,:|", rune(c)) {
				return nil, 0, 0, fmt.Errorf("unexpected %q", c)
			}
		}
		tokens = append(tokens, tok{tokOperator, rest[:size]})
		i += size
	}
	return nil, 0, 0, fmt.Errorf("a tag does not end")
}

func opening(c byte) byte {
	switch c {
	case ')':
		return '('
	case ']':
		return '['
	}
	return '{'
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isName(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c)
}

// lexNumber reads an integer or a float, and writes it as the library reads it.
func lexNumber(s string) (text string, size int, err error) {
	digits := func() {
		for size < len(s) && (isDigit(s[size]) || s[size] == '_') {
			size++
		}
	}
	digits()
	integer := true
	if size+1 < len(s) && s[size] == '.' && isDigit(s[size+1]) {
		integer = false
		size++
		digits()
	}
	if size+1 < len(s) && (s[size] == 'e' || s[size] == 'E') {
		exponent := size + 1
		if s[exponent] == '-' || s[exponent] == '+' {
			exponent++
		}
		if exponent < len(s) && isDigit(s[exponent]) {
			integer = false
			size = exponent
			digits()
		}
	}
	if size < len(s) && isName(s[size]) {
		return "", 0, fmt.Errorf("%q is no number", s[:size+1])
	}
	text = strings.ReplaceAll(s[:size], "_", "")
	if integer {
		if _, err := strconv.ParseInt(text, 10, 64); err != nil {
			return "", 0, fmt.Errorf("the number %.30s is too large", text)
		}
		return text, size, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return "", 0, fmt.Errorf("the number %.30s is too large", text)
	}
	text = strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text, size, nil
}

// lexString reads a string with Python's escapes.
func lexString(s string) (text string, size int, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == s[0]:
			return b.String(), i + 1, nil
		case s[i] != '\\' || i+1 == len(s):
			b.WriteByte(s[i])
		default:
			i++
			if plain := strings.IndexByte(`abfnrtv0\'"`, s[i]); plain >= 0 {
				b.WriteByte("\a\b\f\n\r\t\v\x00\\'\""[plain])
				continue
			}
			digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[i]]
			if digits == 0 {
				if s[i] != '\n' { // a line break after a backslash is nothing
					b.WriteByte('\\')
					b.WriteByte(s[i])
				}
				continue
			}
			if i+digits >= len(s) {
				return "", 0, fmt.Errorf("a string does not end")
			}
			code, err := strconv.ParseUint(s[i+1:i+1+digits], 16, 32)
			if err != nil || code > unicode.MaxRune {
				return "", 0, fmt.Errorf("%q is no character", s[i-1:i+1+digits])
			}
			b.WriteRune(rune(code))
			i += digits
		}
	}
	return "", 0, fmt.Errorf("a string does not end")
}
