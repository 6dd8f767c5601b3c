package gateway

import (
	"net/http"
	"time"

	"github.com/daisy-llm/daisy/coordinator"
	"github.com/daisy-llm/daisy/model/token"
)

// chat serves POST /v1/chat/completions.
func (g *Gateway) chat(w http.ResponseWriter, r *http.Request, o *object) error {
	j := g.chatJob(o)
	if *o.err != nil {
		return *o.err
	}
	j.id, j.created = "chatcmpl-"+requestID(r.Context()), time.Now().Unix()
	return g.serve(w, r, j)
}

// chatJob reads a whole request; what is wrong with it is in o.err.
func (g *Gateway) chatJob(o *object) *job {
	j := &job{options: g.options(o)}
	j.maxTokens = maxTokens(o, 0, "max_completion_tokens", "max_tokens")
	j.logprobs, j.top = o.flag("logprobs", false), top(o, "top_logprobs")
	if j.top > 0 && !j.logprobs {
		o.fail(invalid("top_logprobs", "invalid_value", "'top_logprobs' needs 'logprobs' to be true."))
	}
	if o.flag("echo", false) {
		o.fail(unsupported("echo", "'echo' is not supported for chat."))
	}
	j.prompts = []prompt{g.conversation(o)}
	j.form = &chatForm{words: words{g.cfg.Tokenizer}, returnIDs: j.returnIDs, logprobs: j.logprobs}
	return j
}

// chatForm writes answers as /v1/chat/completions does.
type chatForm struct {
	words     words
	returnIDs bool
	logprobs  bool
}

type chatMessage struct {
	Role    string  `json:"role"`
	Content string  `json:"content"`
	Refusal *string `json:"refusal"`
}

type chatDelta struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

type chatChoice struct {
	Index        int                 `json:"index"`
	Message      *chatMessage        `json:"message,omitempty"`
	Delta        *chatDelta          `json:"delta,omitempty"`
	Logprobs     *chatLogprobs       `json:"logprobs"`
	FinishReason *coordinator.Finish `json:"finish_reason"`
	StopReason   string              `json:"stop_reason,omitempty"`
	TokenIDs     []token.ID          `json:"token_ids,omitzero"`
}

func (f *chatForm) object(streamed bool) string {
	if streamed {
		return "chat.completion.chunk"
	}
	return "chat.completion"
}

func (f *chatForm) promptIDs() bool { return true }

func (f *chatForm) opening(c *choice) any {
	return chatChoice{Index: c.index, Delta: &chatDelta{Role: "assistant", Content: new(string)}}
}

func (f *chatForm) chunk(c *choice, d coordinator.Delta, end *coordinator.Answer) any {
	v := f.choice(c, d, end)
	v.Delta = &chatDelta{}
	if end == nil {
		v.Delta.Content = &d.Text
	}
	return v
}

func (f *chatForm) whole(c *choice) any {
	v := f.choice(c, c.delta(), &c.answer)
	v.Message = &chatMessage{Role: "assistant", Content: c.text.String()}
	return v
}

func (f *chatForm) choice(c *choice, d coordinator.Delta, end *coordinator.Answer) chatChoice {
	v := chatChoice{Index: c.index}
	if f.returnIDs {
		v.TokenIDs = ids(d.IDs)
	}
	if f.logprobs && len(d.Logprobs) > 0 {
		v.Logprobs = f.words.chat(d.Logprobs)
	}
	if end != nil {
		v.FinishReason, v.StopReason = &end.Finish, end.Stop
	}
	return v
}
