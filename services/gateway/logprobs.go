package gateway

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
)

// words says what tokens are called in log probabilities.
type words struct{ tokenizer Tokenizer }

// leastLogprob stands for what JSON cannot say: the logarithm of nothing. OpenAI uses the same number.
const leastLogprob = -9999

func logprob(v float32) float32 {
	if v >= leastLogprob { // false for NaN
		return v
	}
	return leastLogprob
}

// name is a token as a string. A piece that is no UTF-8 by itself shows its bytes as \xe2\x80, so that two of them differ.
func (w words) name(id token.ID) string {
	piece := w.tokenizer.Piece(id)
	if utf8.Valid(piece) {
		return string(piece)
	}
	var b strings.Builder
	for _, c := range piece {
		fmt.Fprintf(&b, `\x%02x`, c)
	}
	return b.String()
}

type chatLogprobs struct {
	Content []chatLogprob `json:"content"`
	Refusal []chatLogprob `json:"refusal"` // always null
}

type chatLogprob struct {
	chatAlternative
	Top []chatAlternative `json:"top_logprobs"`
}

type chatAlternative struct {
	Token   string  `json:"token"`
	Logprob float32 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

func (w words) chat(choices []sample.Choice) *chatLogprobs {
	var list chatLogprobs
	for _, c := range choices {
		entry := chatLogprob{w.alternative(c.Alternative), []chatAlternative{}}
		for _, t := range c.Top {
			entry.Top = append(entry.Top, w.alternative(t))
		}
		list.Content = append(list.Content, entry)
	}
	return &list
}

func (w words) alternative(a sample.Alternative) chatAlternative {
	v := chatAlternative{Token: w.name(a.Token), Logprob: logprob(a.Logprob), Bytes: []int{}}
	for _, c := range w.tokenizer.Piece(a.Token) {
		v.Bytes = append(v.Bytes, int(c))
	}
	return v
}

type completionLogprobs struct {
	Tokens        []string             `json:"tokens"`
	TokenLogprobs []float32            `json:"token_logprobs"`
	TopLogprobs   []map[string]float32 `json:"top_logprobs"`
	TextOffset    []int                `json:"text_offset"`
}

// completion also moves c.offset on, past the text of these tokens.
func (w words) completion(c *choice, choices []sample.Choice) *completionLogprobs {
	var list completionLogprobs
	for _, t := range choices {
		top := map[string]float32{}
		for _, a := range t.Top {
			if name := w.label(a.Token); top[name] == 0 { // of two tokens with one name the likelier stays
				top[name] = logprob(a.Logprob)
			}
		}
		top[w.label(t.Token)] = logprob(t.Logprob) // the token that was chosen is always among them
		list.Tokens = append(list.Tokens, w.label(t.Token))
		list.TokenLogprobs = append(list.TokenLogprobs, logprob(t.Logprob))
		list.TopLogprobs = append(list.TopLogprobs, top)
		list.TextOffset = append(list.TextOffset, w.advance(c, t.Token))
	}
	return &list
}

// label is name as the older endpoint writes it.
func (w words) label(id token.ID) string {
	name := w.name(id)
	if !utf8.Valid(w.tokenizer.Piece(id)) {
		return "bytes:" + name
	}
	return name
}

// advance gives the character, counted from the beginning of the answer, that a token's text begins in.
func (w words) advance(c *choice, id token.ID) int {
	at := c.offset
	if w.tokenizer.IsControl(id) {
		return at // it has no text
	}
	piece := w.tokenizer.Piece(id)
	for i, b := range piece {
		if utf8.RuneStart(b) {
			c.offset++
		} else if i == 0 && at > 0 {
			at-- // inside the character that the token before began
		}
	}
	return at
}

// ids is the list itself, or an empty one, which JSON shows as [] and not as null.
func ids(list []token.ID) []token.ID {
	if list == nil {
		return []token.ID{}
	}
	return list
}
