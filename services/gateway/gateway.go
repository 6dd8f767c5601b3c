package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/daisy-llm/daisy/coordinator"
)

// Engine generates. The coordinator is one.
type Engine interface {
	// Generate blocks until the answer is complete or failed. It calls emit from its own goroutine, in order, and gives
	// the delta away. The end of ctx and an error of emit end the generation, free its caches and are returned.
	Generate(ctx context.Context, req coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error)
	Status() coordinator.Status
	Ready() bool
}

// Config is what a Gateway is made of. Only Engine, Tokenizer, ModelName and Context are needed.
type Config struct {
	Engine    Engine
	Tokenizer Tokenizer
	Template  Template // nil: the model has none, and chat is refused

	ModelName string   // what /v1/models and every answer call the model
	Aliases   []string // further names under which requests may ask for it
	Context   int      // positions of a sequence, prompt and answer together
	Created   time.Time

	MaxBodyBytes int64 // of one request; 4 MiB. A token takes 4 to 8 bytes of it, as text or as an id
	MaxRequests  int   // in progress at once; more are refused with 429. 512: each holds its body
	MaxChoices   int   // answers of one request, prompts times n; 128
	MaxParallel  int   // answers of one request that are generated at once; 8. More fill pipelines, and the queue for others

	KeepAlive    time.Duration // silence of a stream before a comment is sent; 1 s. Proxies often give up after 30 s or 60 s
	BodyTimeout  time.Duration // for a client to send its request's body; 60 s
	WriteTimeout time.Duration // for a client to take each piece of its answer; 30 s, then its generations are ended

	AllowedOrigins []string // of pages that may use the API, as "https://example.org"; "*": all. None: only pages served here
	AllowedHosts   []string // names by which clients may call the server, beside localhost and IP addresses

	Logger         *slog.Logger
	TracerProvider trace.TracerProvider          // nil: the global one
	MeterProvider  metric.MeterProvider          // nil: the global one
	Propagator     propagation.TextMapPropagator // nil: W3C trace context and baggage
}

// Validate fills in defaults and says what is missing or makes no sense.
func (c *Config) Validate() error {
	switch {
	case c.Engine == nil:
		return errors.New("gateway: no engine is configured")
	case c.Tokenizer == nil:
		return errors.New("gateway: no tokenizer is configured")
	case c.ModelName == "":
		return errors.New("gateway: the model has no name")
	case c.Context < 2:
		return fmt.Errorf("gateway: a context of %d tokens leaves no room for a prompt and an answer", c.Context)
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"KeepAlive", &c.KeepAlive, time.Second},
		{"BodyTimeout", &c.BodyTimeout, time.Minute},
		{"WriteTimeout", &c.WriteTimeout, 30 * time.Second},
	} {
		if *d.value < 0 {
			return fmt.Errorf("gateway: %s is %v: it must be more than 0", d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	for _, n := range []struct {
		name  string
		value *int
		def   int
	}{
		{"MaxRequests", &c.MaxRequests, 512},
		{"MaxChoices", &c.MaxChoices, 128},
		{"MaxParallel", &c.MaxParallel, 8},
	} {
		if *n.value < 0 {
			return fmt.Errorf("gateway: %s is %d: it must be more than 0", n.name, *n.value)
		}
		if *n.value == 0 {
			*n.value = n.def
		}
	}
	if c.MaxBodyBytes < 0 {
		return fmt.Errorf("gateway: MaxBodyBytes is %d: it must be more than 0", c.MaxBodyBytes)
	}
	if c.MaxBodyBytes == 0 {
		c.MaxBodyBytes = 4 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Propagator == nil {
		c.Propagator = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	}
	return nil
}

// Gateway answers HTTP requests. It starts nothing; Handler's goroutines end with their requests.
type Gateway struct {
	cfg        Config
	vocab      int
	showsTools bool          // the template tells the model of its tools
	slots      chan struct{} // one for each request in progress
}

// New makes a Gateway of a configuration.
func New(cfg Config) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Gateway{
		cfg: cfg, vocab: cfg.Tokenizer.Size(),
		showsTools: cfg.Template != nil && showsTools(cfg.Template),
		slots:      make(chan struct{}, cfg.MaxRequests),
	}, nil
}

// Handler serves the API.
func (g *Gateway) Handler() http.Handler {
	mux := http.NewServeMux()
	for path, m := range map[string]methods{
		"/v1/chat/completions": {http.MethodPost: g.post(g.chat)},
		"/v1/completions":      {http.MethodPost: g.post(g.completions)},
		"/v1/models":           {http.MethodGet: g.models},
		"/v1/models/{id...}":   {http.MethodGet: g.model},
		"/tokenize":            {http.MethodPost: g.post(g.tokenize)},
		"/detokenize":          {http.MethodPost: g.post(g.detokenize)},
	} {
		mux.Handle(path, g.traced(path, g.guard(m)))
	}
	// Probes come every few seconds and would bury the traces of requests.
	for path, m := range map[string]methods{
		"/healthz": {http.MethodGet: g.health},
		"/readyz":  {http.MethodGet: g.readiness},
		"/cluster": {http.MethodGet: g.cluster},
	} {
		mux.Handle(path, g.guard(m))
	}
	mux.Handle("/", g.guard(http.HandlerFunc(g.notFound)))
	return mux
}

// traced gives each request of a route a span, named so that its name tells routes apart but not requests.
func (g *Gateway) traced(path string, next http.Handler) http.Handler {
	options := []otelhttp.Option{
		otelhttp.WithPropagators(g.cfg.Propagator),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return spanMethod(r.Method) + " " + path }),
	}
	if g.cfg.TracerProvider != nil {
		options = append(options, otelhttp.WithTracerProvider(g.cfg.TracerProvider))
	}
	if g.cfg.MeterProvider != nil {
		options = append(options, otelhttp.WithMeterProvider(g.cfg.MeterProvider))
	}
	return otelhttp.NewHandler(next, path, options...)
}

// spanMethod keeps methods that clients make up out of span names.
func spanMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "HTTP"
}

// read takes in a request's body and parses it.
func (g *Gateway) read(w http.ResponseWriter, r *http.Request) (*object, error) {
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return nil, &problem{status: http.StatusUnsupportedMediaType, kind: kindRequest, code: "unsupported_encoding",
			message: "The content encoding '" + abridge(coding) + "' is not supported: send the body as it is."}
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(g.cfg.BodyTimeout)) // a writer without deadlines is a test's
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, g.cfg.MaxBodyBytes))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
		return nil, invalid("", "invalid_body", "The request body could not be read: %v.", err)
	}
	// The deadline would end the wait for the client to go away, and with it the generation.
	_ = control.SetReadDeadline(time.Time{})
	return parse(body)
}

func (g *Gateway) notFound(w http.ResponseWriter, r *http.Request) {
	(&problem{status: http.StatusNotFound, kind: kindRequest, code: "not_found",
		message: fmt.Sprintf("There is nothing at %s %s.", abridge(r.Method), abridge(r.URL.Path))}).write(w)
}
