package gateway

import (
	"encoding/json"
	"strings"

	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/model/tokenizer"
)

// Tokenizer is the model's: a *tokenizer.Tokenizer. Many requests use it at once.
type Tokenizer interface {
	Encode(text string, o tokenizer.Options) []token.ID
	Decode(ids []token.ID, special bool) string
	Piece(id token.ID) []byte
	IsControl(id token.ID) bool
	AddsBOS() bool
	BOS() (id token.ID, ok bool)
	Size() int
}

// Template is the model's chat template: a *template.Template. Many requests use it at once.
type Template interface {
	Render(messages, tools json.RawMessage, addGenerationPrompt bool, extra map[string]json.RawMessage) (string, error)
}

// encode gives the ids of a prompt. Control tokens may be written out in it: clients render templates of their own.
func (g *Gateway) encode(text string, addSpecial bool) []token.ID {
	return g.cfg.Tokenizer.Encode(text, tokenizer.Options{AddSpecial: addSpecial, ParseSpecial: true})
}

// begin puts the token before a rendered conversation with which the model wants every sequence to begin. Many templates
// leave that to the tokenizer, others write it themselves.
func (g *Gateway) begin(ids []token.ID) []token.ID {
	bos, ok := g.cfg.Tokenizer.BOS()
	if !ok || !g.cfg.Tokenizer.AddsBOS() || len(ids) > 0 && ids[0] == bos {
		return ids
	}
	return append([]token.ID{bos}, ids...)
}

// showsTools finds out whether a template tells the model of the tools it is given. Most just leave them out.
func showsTools(t Template) bool {
	const name = "d41sy_probe"
	text, err := t.Render(json.RawMessage(`[{"role":"user","content":"x"}]`),
		json.RawMessage(`[{"type":"function","function":{"name":"`+name+`","description":"x","parameters":{"type":"object","properties":{}}}}]`), true, nil)
	return err == nil && strings.Contains(text, name)
}
