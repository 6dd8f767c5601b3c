package coordinator

import "strings"

// stopMatcher finds the first stop string in a text that arrives in pieces, and holds back what may still become one.
type stopMatcher struct {
	stops []string
	held  string // a suffix of the text so far that begins some stop string
}

// push takes the next piece. It returns the text that is certain to precede any stop string, and the stop string that was
// reached, if one was: the earliest, and of two that begin together the longer one.
func (m *stopMatcher) push(piece string) (text, stop string) {
	text = m.held + piece
	first := len(text)
	for _, s := range m.stops {
		if i := strings.Index(text, s); i >= 0 && (i < first || i == first && len(s) > len(stop)) {
			first, stop = i, s
		}
	}
	if stop != "" {
		m.held = ""
		return text[:first], stop
	}
	keep := 0
	for _, s := range m.stops {
		for n := min(len(s)-1, len(text)); n > keep; n-- {
			if strings.HasSuffix(text, s[:n]) {
				keep = n
			}
		}
	}
	m.held = text[len(text)-keep:]
	return text[:len(text)-keep], ""
}

// flush returns what was held back, at the end of the text.
func (m *stopMatcher) flush() string {
	held := m.held
	m.held = ""
	return held
}
