package gateway

import (
	"net/http"

	"github.com/daisy-llm/daisy/model/token"
)

// tokenize serves POST /tokenize: the ids of a text ("prompt") or of a conversation ("messages").
func (g *Gateway) tokenize(w http.ResponseWriter, _ *http.Request, o *object) error {
	g.checkModel(o)
	var list []token.ID
	if o.has("messages") {
		list = g.conversation(o).ids
	} else if !o.has("prompt") {
		o.fail(invalid("prompt", "missing_required_parameter", "'prompt' or 'messages' is required."))
	} else {
		list = g.encode(o.text("prompt"), o.flag("add_special_tokens", true))
	}
	named := o.flag("return_token_strs", false)
	if *o.err != nil {
		return *o.err
	}
	answer := struct {
		Count   int        `json:"count"`
		Context int        `json:"max_model_len"`
		Tokens  []token.ID `json:"tokens"`
		Names   []string   `json:"token_strs"`
	}{Count: len(list), Context: g.cfg.Context, Tokens: ids(list)}
	if named {
		answer.Names = []string{}
		for _, id := range list {
			answer.Names = append(answer.Names, words{g.cfg.Tokenizer}.name(id))
		}
	}
	writeJSON(w, http.StatusOK, encode(answer))
	return nil
}

// detokenize serves POST /detokenize.
func (g *Gateway) detokenize(w http.ResponseWriter, _ *http.Request, o *object) error {
	g.checkModel(o)
	var list []token.ID
	switch raw := o.raw("tokens"); {
	case raw == nil:
		o.fail(invalid("tokens", "missing_required_parameter", "'tokens' is required."))
	case raw[0] != '[':
		o.wrongType("tokens", raw, "an array of token ids")
	default:
		list = g.ids(o, "tokens", raw)
	}
	if *o.err != nil {
		return *o.err
	}
	writeJSON(w, http.StatusOK, encode(struct {
		Prompt string `json:"prompt"`
	}{g.cfg.Tokenizer.Decode(list, true)}))
	return nil
}
