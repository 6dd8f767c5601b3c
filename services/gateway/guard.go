package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/daisy-llm/daisy/coordinator"
)

// methods is a path's handlers by method; it answers every other method itself.
type methods map[string]http.HandlerFunc

func (m methods) allow() string {
	var names []string
	for name := range m {
		names = append(names, name)
		if name == http.MethodGet {
			names = append(names, http.MethodHead)
		}
	}
	slices.Sort(names)
	return strings.Join(append(names, http.MethodOptions), ", ")
}

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet // net/http drops the body
	}
	switch handle, ok := m[method]; {
	case ok:
		handle(w, r)
	case r.Method == http.MethodOptions:
		w.Header().Set("Allow", m.allow())
		preflight(w, r, m.allow())
	default:
		(&problem{status: http.StatusMethodNotAllowed, kind: kindRequest, code: "method_not_allowed", allow: m.allow(),
			message: fmt.Sprintf("%s is not allowed for %s: use %s.", abridge(r.Method), abridge(r.URL.Path), m.allow())}).write(w)
	}
}

// guard stands around every handler: it gives the request its id, keeps foreign pages out, sees to it that no client
// holds the connection by not reading, and turns a panic into a 500.
func (g *Gateway) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := newID()
		r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id))
		w.Header().Set("X-Request-Id", id)
		if span := trace.SpanContextFromContext(r.Context()); span.HasTraceID() {
			w.Header().Set("X-Trace-Id", span.TraceID().String())
		}
		out := &response{ResponseWriter: w, control: http.NewResponseController(w), timeout: g.cfg.WriteTimeout}
		// A deadline left behind would fall upon the connection's next request.
		defer func() { _ = out.control.SetWriteDeadline(time.Time{}) }()
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if cause != http.ErrAbortHandler {
				g.cfg.Logger.ErrorContext(r.Context(), "handler panicked", "path", r.URL.Path, "request", id,
					"cause", fmt.Sprint(cause), "stack", string(debug.Stack()))
				if !out.begun {
					explain(fmt.Errorf("panic: %v", cause)).write(out)
					return
				}
			}
			panic(http.ErrAbortHandler) // net/http cuts the connection and says no more
		}()
		if p := g.checkHost(r); p != nil {
			p.write(out)
			return
		}
		if p := g.checkOrigin(out, r); p != nil {
			p.write(out)
			return
		}
		next.ServeHTTP(out, r)
	})
}

// post is a handler of JSON requests. It bounds how many are in progress, and with them how many bodies are held in memory
// and how many generations wait on the engine. An error that handle returns is answered here.
func (g *Gateway) post(handle func(http.ResponseWriter, *http.Request, *object) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := coordinator.ErrBusy
		select {
		case g.slots <- struct{}{}:
			defer func() { <-g.slots }()
			var o *object
			if o, err = g.read(w, r); err == nil {
				err = handle(w, r, o)
			}
		default:
		}
		if err != nil {
			g.explain(r, err).write(w)
		}
	}
}

// response gives each write its time, and remembers whether there was one.
type response struct {
	http.ResponseWriter
	control *http.ResponseController // of the writer below
	timeout time.Duration
	begun   bool
}

func (w *response) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	w.begun = true
	_ = w.control.SetWriteDeadline(time.Now().Add(w.timeout)) // a writer without deadlines is a test's
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController flush the writer below.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type requestIDKey struct{}

// requestID is what guard called the request.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

func newID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
