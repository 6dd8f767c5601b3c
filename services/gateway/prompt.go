package gateway

import (
	"fmt"
	"math"
	"strconv"

	"github.com/daisy-llm/daisy/model/token"
)

// prompts reads the prompt of a completions request: a text, several texts, token ids, or several lists of token ids.
func (g *Gateway) prompts(o *object, addSpecial, echo bool) []prompt {
	raw := o.raw("prompt")
	if raw == nil {
		o.fail(invalid("prompt", "missing_required_parameter", "'prompt' is required: give a text, token ids, or an array of either."))
		return nil
	}
	list := []element{{"prompt", raw}}
	if raw[0] == '[' && !startsWithNumber(raw) {
		if list = o.elements("prompt", raw, g.cfg.MaxChoices); len(list) == 0 {
			o.fail(invalid("prompt", "invalid_value", "'prompt' must not be empty."))
		}
	}
	var prompts []prompt
	for _, e := range list {
		p := prompt{}
		switch e.raw[0] {
		case '"':
			p.text = text(e.raw)
			p.ids = g.encode(p.text, addSpecial)
		case '[':
			p.ids = g.ids(o, e.param, e.raw)
			if echo {
				p.text = g.cfg.Tokenizer.Decode(p.ids, true)
			}
		default:
			o.wrongType(e.param, e.raw, "a string or an array of token ids")
		}
		g.checkLength(o, e.param, p.ids)
		if *o.err != nil {
			return nil
		}
		prompts = append(prompts, p)
	}
	return prompts
}

func startsWithNumber(array []byte) bool {
	for _, first := range members(array) {
		return isNumber(first)
	}
	return false
}

// checkLength refuses a prompt that has no token, or no room for an answer.
func (g *Gateway) checkLength(o *object, param string, ids []token.ID) {
	switch {
	case *o.err != nil:
	case len(ids) == 0:
		o.fail(invalid(param, "invalid_value", "'%s' has no tokens: this model needs at least one to begin with.", param))
	case len(ids) >= g.cfg.Context:
		o.fail(tooLong(param, len(ids), g.cfg.Context))
	}
}

// ids reads an array of token ids.
func (g *Gateway) ids(o *object, param string, raw []byte) []token.ID {
	ids := []token.ID{}
	for _, value := range members(raw) {
		id, err := strconv.Atoi(string(value))
		if err != nil || id < 0 || id >= g.vocab {
			// The slow path names the element, and lets 16.0 pass.
			id = o.parseInteger(fmt.Sprintf("%s[%d]", param, len(ids)), value, 0, g.vocab-1)
			if *o.err != nil {
				return nil
			}
		}
		ids = append(ids, token.ID(id))
	}
	return ids
}

// maxTokens reads the limit under the first of these names that is given.
func maxTokens(o *object, otherwise int, names ...string) int {
	for _, name := range names {
		if o.has(name) {
			return o.integer(name, 0, 1, math.MaxInt)
		}
	}
	return otherwise
}
