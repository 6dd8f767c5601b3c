package gateway

import (
	"context"
	"log/slog"
	"net/http"

	"go.opentelemetry.io/otel/trace"

	"github.com/daisy-llm/daisy/coordinator"
	"github.com/daisy-llm/daisy/model/token"
)

// envelope is what all choices of a response, or of one chunk of it, come in.
type envelope struct {
	ID          string     `json:"id"`
	Object      string     `json:"object"`
	Created     int64      `json:"created"`
	Model       string     `json:"model"`
	Fingerprint string     `json:"system_fingerprint"`
	Choices     []any      `json:"choices"`
	Usage       any        `json:"usage,omitempty"` // absent, null (a nil *usage) or there
	PromptIDs   []token.ID `json:"prompt_token_ids,omitempty"`
}

type usage struct {
	Prompt        int           `json:"prompt_tokens"`
	Completion    int           `json:"completion_tokens"`
	Total         int           `json:"total_tokens"`
	PromptDetails promptDetails `json:"prompt_tokens_details"`
}

type promptDetails struct {
	Cached int `json:"cached_tokens"`
}

// envelope is the job's, with the choices still to be put in.
func (j *job) envelope() envelope {
	return envelope{
		ID: j.id, Object: j.form.object(j.stream), Created: j.created, Model: j.model,
		Fingerprint: j.fingerprint, Choices: []any{},
	}
}

// usage counts a prompt once, however many answers it has: as cached, what none of them had to compute.
func (j *job) usage() *usage {
	var u usage
	for i := range j.prompts {
		u.Prompt += len(j.prompts[i].ids)
		cached := len(j.prompts[i].ids)
		for _, c := range j.answers[i*j.choices : (i+1)*j.choices] {
			cached = min(cached, c.answer.CachedTokens)
		}
		u.PromptDetails.Cached += cached
	}
	for _, c := range j.answers {
		u.Completion += c.answer.GeneratedTokens
	}
	u.Total = u.Prompt + u.Completion
	return &u
}

// serve runs a job and answers with it, streamed or whole. An error that it returns is still to be told.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, j *job) error {
	if !g.cfg.Engine.Ready() && g.cfg.Engine.Status().State == coordinator.StateWaiting { // all else is worth a wait
		return g.notReady()
	}
	j.model, j.fingerprint = g.cfg.ModelName, g.fingerprint()
	j.plan()
	if j.stream {
		return g.stream(w, r, j)
	}
	for e := range g.events(r.Context(), j.answers, 0) {
		switch {
		case e.err != nil:
			return e.err
		case e.end != nil:
			e.choice.answer = *e.end
		default:
			e.choice.text.WriteString(e.delta.Text)
			e.choice.ids = append(e.choice.ids, e.delta.IDs...)
			e.choice.logprobs = append(e.choice.logprobs, e.delta.Logprobs...)
		}
	}
	response := j.envelope()
	for _, c := range j.answers {
		response.Choices = append(response.Choices, j.form.whole(c))
	}
	if j.returnIDs && j.form.promptIDs() {
		response.PromptIDs = j.prompts[0].ids
	}
	response.Usage = j.usage()
	writeJSON(w, http.StatusOK, encode(response))
	return nil
}

// statusGone is what nginx made the custom for a client that did not wait; nobody reads it but traces and metrics.
const statusGone = 499

// explain finds the problem in an error and logs it, once, if it is the server's.
func (g *Gateway) explain(r *http.Request, err error) *problem {
	ctx := r.Context()
	p := explain(err)
	switch {
	case p.status < http.StatusInternalServerError:
	case ctx.Err() != nil && context.Cause(ctx) == context.Canceled: // a server that stops gives another cause
		p = &problem{status: statusGone, kind: kindRequest, code: "cancelled", message: "The client went away."}
	default:
		trace.SpanFromContext(ctx).RecordError(err)
		level := slog.LevelError
		switch {
		case ctx.Err() != nil: // whoever stops the server knows that; what breaks meanwhile tells the client less
			p = &problem{status: http.StatusServiceUnavailable, kind: kindUnavailable, code: "not_ready", retry: 2,
				message: "The server is shutting down."}
			level = slog.LevelInfo
		case p.status == http.StatusServiceUnavailable:
			level = slog.LevelWarn
		}
		g.cfg.Logger.Log(ctx, level, "request failed", "path", r.URL.Path, "request", requestID(ctx), "status", p.status, "error", err)
	}
	return p
}
