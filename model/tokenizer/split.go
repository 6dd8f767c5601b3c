package tokenizer

import (
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/dlclark/regexp2/v2"
)

// splitter cuts text into the words that merge apart from each other. Its steps follow one another: each cuts what the
// step before left whole. What a step matches becomes a piece, and so does what lies between two matches.
type splitter struct {
	steps []step
}

// step calls cut with ascending indexes of chars, some perhaps 0 or len(chars) or repeated, where pieces end.
type step func(chars []rune, cut func(int))

// splitScratch is memory that lasts from text to text.
type splitScratch struct {
	chars []rune
}

// split calls word with the words of text, in order; together they are text.
func (s *splitter) split(scratch *splitScratch, text string, word func(string)) {
	chars := scratch.chars[:0]
	for _, r := range text { // a byte that is not UTF-8 counts as one U+FFFD
		chars = append(chars, r)
	}
	if cap(chars) < maxKeptSymbols {
		scratch.chars = chars
	}
	s.descend(0, chars, func(piece []rune) {
		size := 0
		for range piece {
			_, n := utf8.DecodeRuneInString(text[size:])
			size += n
		}
		word(text[:size])
		text = text[size:]
	})
}

// descend cuts chars by the steps from i on.
func (s *splitter) descend(i int, chars []rune, piece func([]rune)) {
	if i == len(s.steps) {
		piece(chars)
		return
	}
	from := 0
	cut := func(to int) {
		if to > from {
			s.descend(i+1, chars[from:to], piece)
			from = to
		}
	}
	s.steps[i](chars, cut)
	cut(len(chars))
}

// newSplitter compiles a rule.
func newSplitter(r rule) (*splitter, error) {
	s := &splitter{}
	if r.digits != nil {
		s.steps = append(s.steps, r.digits)
	}
	for _, expression := range r.expressions {
		// The backtracking stack is not limited: no expression here takes more of it than a few entries a character.
		re, err := regexp2.Compile(expression, regexp2.OptionMaxBacktrackingStackSize(-1))
		if err != nil {
			return nil, fmt.Errorf("compile %q: %w", expression, err)
		}
		s.steps = append(s.steps, matching(re))
	}
	return s, nil
}

// matching cuts before and after what the expression matches.
func matching(re *regexp2.Regexp) step {
	return func(chars []rune, cut func(int)) {
		// An error would be that of a time or stack limit, and there are none.
		_ = re.FindRunesMatches(chars, 0, func(m regexp2.MatchView) bool {
			start, length, _ := m.GroupRange(0)
			cut(start)
			cut(start + length)
			return true
		})
	}
}

// threes cuts each run of the characters that digit accepts into threes, counted from its end, the first piece being what
// is left over; a run before whose end whole is not true stays as it is. As a regular expression, with its lookahead to the end of the
// run at every cut, this would take quadratic time.
func threes(digit func(rune) bool, whole func(chars []rune, end int) bool) step {
	return func(chars []rune, cut func(int)) {
		for i := 0; i < len(chars); i++ {
			start := i
			for i < len(chars) && digit(chars[i]) {
				i++
			}
			if i == start || whole != nil && !whole(chars, i) {
				continue
			}
			cut(start)
			for to := start + (i-start)%3; to <= i; to += 3 {
				cut(to)
			}
		}
	}
}

// endsWord says whether a run of digits is not followed by a letter, mark, number or connector: \b in the regular
// expressions of Oniguruma, which the models' own tokenizers use.
func endsWord(chars []rune, end int) bool {
	return end == len(chars) || !unicode.In(chars[end], unicode.L, unicode.M, unicode.N, unicode.Pc)
}
