package gateway

import (
	"net/http"
	"time"

	"github.com/daisy-llm/daisy/coordinator"
	"github.com/daisy-llm/daisy/model/token"
)

// completionTokens is how long a completion gets if its request does not say; OpenAI's number.
const completionTokens = 16

// completions serves POST /v1/completions.
func (g *Gateway) completions(w http.ResponseWriter, r *http.Request, o *object) error {
	j := g.completionsJob(o)
	if *o.err != nil {
		return *o.err
	}
	j.id, j.created = "cmpl-"+requestID(r.Context()), time.Now().Unix()
	return g.serve(w, r, j)
}

// completionsJob reads a whole request; what is wrong with it is in o.err.
func (g *Gateway) completionsJob(o *object) *job {
	j := &job{options: g.options(o)}
	j.maxTokens = maxTokens(o, completionTokens, "max_tokens", "max_completion_tokens")
	j.logprobs, j.top = o.has("logprobs"), top(o, "logprobs")
	echo := o.flag("echo", false)
	if echo && j.logprobs {
		o.fail(unsupported("echo", "'echo' together with 'logprobs' is not supported: log probabilities are of generated tokens only."))
	}
	j.prompts = g.prompts(o, o.flag("add_special_tokens", true), echo)
	if len(j.prompts)*j.options.choices > g.cfg.MaxChoices {
		o.fail(invalid("n", "invalid_value", "%d prompts with 'n' of %d are %d answers: at most %d are allowed.",
			len(j.prompts), j.options.choices, len(j.prompts)*j.options.choices, g.cfg.MaxChoices))
	}
	j.form = &completionForm{words: words{g.cfg.Tokenizer}, returnIDs: j.returnIDs, logprobs: j.logprobs, echo: echo}
	return j
}

// completionForm writes answers as /v1/completions does.
type completionForm struct {
	words     words
	returnIDs bool
	logprobs  bool
	echo      bool
}

type completionChoice struct {
	Index        int                 `json:"index"`
	Text         string              `json:"text"`
	Logprobs     *completionLogprobs `json:"logprobs"`
	FinishReason *coordinator.Finish `json:"finish_reason"`
	StopReason   string              `json:"stop_reason,omitempty"`
	PromptIDs    []token.ID          `json:"prompt_token_ids,omitzero"`
	TokenIDs     []token.ID          `json:"token_ids,omitzero"`
}

func (f *completionForm) object(bool) string  { return "text_completion" }
func (f *completionForm) promptIDs() bool     { return false }
func (f *completionForm) opening(*choice) any { return nil }
func (f *completionForm) chunk(c *choice, d coordinator.Delta, end *coordinator.Answer) any {
	return f.choice(c, d, end, !c.opened)
}

func (f *completionForm) whole(c *choice) any { return f.choice(c, c.delta(), &c.answer, true) }

func (f *completionForm) choice(c *choice, d coordinator.Delta, end *coordinator.Answer, first bool) any {
	v := completionChoice{Index: c.index, Text: d.Text}
	if first && f.echo {
		v.Text = c.prompt.text + v.Text
	}
	if f.returnIDs {
		v.TokenIDs = ids(d.IDs)
		if first {
			v.PromptIDs = c.prompt.ids
		}
	}
	if f.logprobs && len(d.Logprobs) > 0 {
		v.Logprobs = f.words.completion(c, d.Logprobs)
	}
	if end != nil {
		v.FinishReason, v.StopReason = &end.Finish, end.Stop
	}
	return v
}
