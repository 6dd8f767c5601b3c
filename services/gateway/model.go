package gateway

import (
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/model/tokenizer"
)

// Tokenizer is the model's. It may be used by many requests at once.
type Tokenizer interface {
	Encode(text string, o tokenizer.Options) []token.ID
	Decode(ids []token.ID, special bool) string
	Piece(id token.ID) []byte
	IsControl(id token.ID) bool
	Size() int
}

// Template is the model's chat template.
type Template interface {
	Render(messages []message) (string, error)
}

// encode gives the ids of a prompt, in which control tokens may be written out.
func (g *Gateway) encode(text string, addSpecial bool) []token.ID {
	return g.cfg.Tokenizer.Encode(text, tokenizer.Options{AddSpecial: addSpecial, ParseSpecial: true})
}

func (g *Gateway) conversation(o *object) prompt {
	list := messages(o)
	if *o.err != nil {
		return prompt{}
	}
	text, err := g.cfg.Template.Render(list)
	if err != nil {
		o.fail(err)
	}
	p := prompt{ids: g.encode(text, false)}
	g.checkLength(o, "messages", p.ids)
	return p
}
