package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"

	"github.com/daisy-llm/daisy/coordinator"
)

// problem is an error as a client sees it: an HTTP status and OpenAI's four fields.
type problem struct {
	status  int
	kind    string // error.type
	code    string // error.code; "" is null
	param   string // error.param, the field at fault; "" is null
	message string
	retry   int // seconds for Retry-After; 0: no such header
	allow   string
}

func (p *problem) Error() string { return p.message }

// Values of error.type.
const (
	kindRequest     = "invalid_request_error"
	kindBusy        = "rate_limit_error"
	kindUnavailable = "service_unavailable_error"
	kindServer      = "server_error"
)

// invalid is a 400 about one field.
func invalid(param, code, format string, args ...any) *problem {
	return &problem{status: http.StatusBadRequest, kind: kindRequest, code: code, param: param, message: fmt.Sprintf(format, args...)}
}

// unsupported is a 400 about a field that is understood, would change the answer, and cannot be honoured.
func unsupported(param, format string, args ...any) *problem {
	return invalid(param, "unsupported_parameter", format, args...)
}

// tooLong is a prompt that leaves no room in the context.
func tooLong(param string, tokens, context int) *problem {
	return invalid(param, "context_length_exceeded",
		"The context of this model is %d tokens. Your prompt has %d tokens, which leaves no room for an answer: shorten it.", context, tokens)
}

// explain says how an error of whatever origin looks to a client. It is the only place where errors become statuses.
func explain(err error) *problem {
	var p *problem
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &tooLarge):
		return &problem{status: http.StatusRequestEntityTooLarge, kind: kindRequest, code: "request_too_large",
			message: fmt.Sprintf("The request body is larger than %d bytes.", tooLarge.Limit)}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &problem{status: http.StatusRequestTimeout, kind: kindRequest, code: "request_timeout",
			message: "The request body did not arrive in time."}
	case errors.Is(err, coordinator.ErrInvalid):
		return invalid("", "invalid_value", "%v", err)
	case errors.Is(err, coordinator.ErrTooLong):
		return invalid("", "context_length_exceeded", "%v", err)
	case errors.Is(err, coordinator.ErrBusy):
		return &problem{status: http.StatusTooManyRequests, kind: kindBusy, code: "rate_limit_exceeded", retry: 1,
			message: err.Error() + ": try again later"}
	case errors.Is(err, coordinator.ErrNotReady):
		return &problem{status: http.StatusServiceUnavailable, kind: kindUnavailable, code: "not_ready", retry: 2, message: err.Error()}
	case errors.Is(err, coordinator.ErrLost):
		return &problem{status: http.StatusServiceUnavailable, kind: kindUnavailable, code: "shard_lost", retry: 2, message: err.Error()}
	case errors.Is(err, context.Canceled): // and not by the client, or nobody would ask
		return &problem{status: http.StatusServiceUnavailable, kind: kindUnavailable, code: "not_ready", retry: 2,
			message: "The server stopped working on this request."}
	case errors.Is(err, context.DeadlineExceeded):
		return &problem{status: http.StatusGatewayTimeout, kind: kindServer, code: "timeout", message: "The request took too long."}
	}
	// What went wrong is in the log, under the request's id: it may speak of paths and addresses.
	return &problem{status: http.StatusInternalServerError, kind: kindServer, code: "internal_error",
		message: "The server failed while it worked on this request; its log says more."}
}

// body is the problem in OpenAI's form.
func (p *problem) body() []byte {
	orNull := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	type fields struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}
	return encode(struct {
		Error fields `json:"error"`
	}{fields{p.message, p.kind, orNull(p.param), orNull(p.code)}})
}

// write answers with the problem. The header must not have been written.
func (p *problem) write(w http.ResponseWriter) {
	if p.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.retry))
	}
	if p.allow != "" {
		w.Header().Set("Allow", p.allow)
	}
	writeJSON(w, p.status, p.body())
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone is told nothing
}
