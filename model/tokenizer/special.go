package tokenizer

import (
	"sort"

	"github.com/daisy-llm/daisy/model/token"
)

// special finds tokens written out in text: the leftmost first, the longest of those that begin there. It is a trie kept
// as a sorted list: the tokens that share a prefix are neighbours, so that reading one more byte narrows a range.
type special struct {
	texts []string // sorted by bytes, none empty
	ids   []token.ID
	first [256][2]int32 // the range of texts that begin with a byte
}

func newSpecial(texts []string, ids []token.ID) special {
	s := special{texts: texts, ids: ids}
	sort.Sort(&s)
	for i, text := range s.texts {
		r := &s.first[text[0]]
		if r[1] == 0 {
			r[0] = int32(i)
		}
		r[1] = int32(i + 1)
	}
	return s
}

func (s *special) Len() int           { return len(s.texts) }
func (s *special) Less(i, j int) bool { return s.texts[i] < s.texts[j] }
func (s *special) Swap(i, j int) {
	s.texts[i], s.texts[j] = s.texts[j], s.texts[i]
	s.ids[i], s.ids[j] = s.ids[j], s.ids[i]
}

// find gives the first token in text, text[start:end]; start and end are len(text), and id none, if there is no token.
func (s *special) find(text string) (start, end int, id token.ID) {
	if len(s.texts) == 0 {
		return len(text), len(text), none
	}
	for i := range len(text) {
		r := s.first[text[i]]
		if r[1] == 0 {
			continue
		}
		if length, id := s.longest(text[i:], int(r[0]), int(r[1])); length > 0 {
			return i, i + length, id
		}
	}
	return len(text), len(text), none
}

// longest finds the longest token that text begins with, among texts[low:high], which share its first byte.
func (s *special) longest(text string, low, high int) (length int, id token.ID) {
	id = none
	for n := 1; ; n++ {
		// texts[low:high] are those that begin with text[:n]; the one that is no longer, if any, is sorted first.
		if len(s.texts[low]) == n {
			length, id = n, s.ids[low]
			low++
		}
		if n == len(text) || low == high {
			return length, id
		}
		c, candidates := text[n], s.texts[low:high]
		from := sort.Search(len(candidates), func(i int) bool { return candidates[i][n] >= c })
		to := from + sort.Search(len(candidates)-from, func(i int) bool { return candidates[from+i][n] > c })
		if low, high = low+from, low+to; low == high {
			return length, id
		}
	}
}
