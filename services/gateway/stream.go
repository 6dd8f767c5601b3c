package gateway

import (
	"net/http"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// stream answers with server-sent events. The header waits for the first of them, so that whatever fails before there is
// a token still has its own status; and no comment comes first while there is no pipeline that could give one.
func (g *Gateway) stream(w http.ResponseWriter, r *http.Request, j *job) error {
	out := &eventWriter{w: w, control: http.NewResponseController(w)}
	send := func(c *choice, value any) error {
		chunk := j.envelope()
		chunk.Choices = append(chunk.Choices, value)
		if j.returnIDs && j.form.promptIDs() && !c.opened {
			chunk.PromptIDs = c.prompt.ids
		}
		if j.includeUsage {
			chunk.Usage = (*usage)(nil)
		}
		c.opened = true
		return out.data(encode(chunk))
	}
	for e := range g.events(r.Context(), j.answers, g.cfg.KeepAlive) {
		var err error
		switch {
		case e.err != nil:
			if !out.begun {
				return e.err
			}
			g.breakOff(r, out, e.err)
		case e.idle:
			if out.begun || g.cfg.Engine.Ready() { // else it may yet end as one that never started, with a status that says so
				err = out.comment("keep-alive")
			}
		default:
			err = j.tell(e, send)
		}
		if err != nil {
			return nil // nobody listens any more; leaving the loop ends the generations
		}
	}
	if j.includeUsage {
		last := j.envelope()
		last.Usage = j.usage()
		_ = out.data(encode(last))
	}
	_ = out.data([]byte("[DONE]")) // fails if the line before did
	return nil
}

// tell sends the chunks of one event. Text that is still held back needs none, unless its ids or log probabilities do.
func (j *job) tell(e event, send func(*choice, any) error) error {
	c := e.choice
	if e.end != nil {
		c.answer = *e.end
	} else if e.delta.Text == "" && !j.returnIDs && !j.logprobs {
		return nil
	}
	if !c.opened {
		if first := j.form.opening(c); first != nil {
			if err := send(c, first); err != nil {
				return err
			}
		}
	}
	return send(c, j.form.chunk(c, e.delta, e.end))
}

// breakOff ends a stream that failed after its header was out: with an error event and without [DONE]. The connection is
// cut, so that the stream does not look finished to a client that reads neither.
func (g *Gateway) breakOff(r *http.Request, out *eventWriter, err error) {
	p := g.explain(r, err)
	trace.SpanFromContext(r.Context()).SetStatus(codes.Error, p.code)
	_ = out.data(p.body())
	panic(http.ErrAbortHandler)
}

// eventWriter writes server-sent events, each flushed at once.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool // the header is out
	buffer  []byte
}

// data sends one event. The data holds no line break: it is JSON from encode, or [DONE].
func (e *eventWriter) data(data []byte) error { return e.line("data: ", data) }

// comment sends what clients skip, so that proxies and clients see that the stream lives.
func (e *eventWriter) comment(text string) error { return e.line(": ", []byte(text)) }

func (e *eventWriter) line(prefix string, text []byte) error {
	if !e.begun {
		h := e.w.Header()
		h.Set("Content-Type", "text/event-stream; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no") // nginx would hold the events back
		h.Set("X-Content-Type-Options", "nosniff")
		e.w.WriteHeader(http.StatusOK)
		e.begun = true
	}
	e.buffer = append(append(append(e.buffer[:0], prefix...), text...), "\n\n"...)
	if _, err := e.w.Write(e.buffer); err != nil {
		return err
	}
	return e.control.Flush()
}
