package telemetry

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
)

const giveUp = 30 * time.Second // a test that waits longer hangs

func TestMain(m *testing.M) {
	// What the caller's environment says about tracing is none of these tests' business.
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "OTEL_") {
			if err := os.Unsetenv(name); err != nil {
				panic(err)
			}
		}
	}
	goleak.VerifyTestMain(m)
}

// start starts as cmd/daisy does, with env in the process's environment.
func start(t *testing.T, env map[string]string, log *slog.Logger) (shutdown func(context.Context) error) {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
	cfg, err := FromEnv(os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ServiceName, cfg.ServiceVersion, cfg.InstanceID, cfg.Log = "daisy-shard", "1.2.3", "petal-1", log
	shutdown, err = Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shutdown(context.Background()); err != nil {
			t.Errorf("a second shutdown: %v", err)
		}
	})
	return shutdown
}

func TestExport(t *testing.T) {
	protocols := []struct {
		name  string
		serve func(*collector, *testing.T) string
		env   func(address string) map[string]string
	}{
		{"grpc", (*collector).serve, func(address string) map[string]string {
			return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + address, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
		}},
		{"http", (*collector).serveHTTP, func(address string) map[string]string {
			return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + address}
		}},
		{"http, address of traces", (*collector).serveHTTP, func(address string) map[string]string {
			return map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://" + address + "/v1/traces", "OTEL_TRACES_EXPORTER": "otlp"}
		}},
	}
	for _, protocol := range protocols {
		t.Run(protocol.name, func(t *testing.T) {
			c := &collector{received: make(chan *tracepb.ResourceSpans, 1)}
			shutdown := start(t, protocol.env(protocol.serve(c, t)), slog.New(slog.DiscardHandler))

			_, span := otel.Tracer("test").Start(t.Context(), "pass")
			span.End()
			if err := shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}

			spans := receive(t, c)
			if got := spans.GetScopeSpans()[0].GetSpans()[0].GetName(); got != "pass" {
				t.Errorf("span %q arrived, want pass", got)
			}
			about := attributes(spans)
			for name, want := range map[string]string{"service.name": "daisy-shard", "service.version": "1.2.3", "service.instance.id": "petal-1", "telemetry.sdk.language": "go"} {
				if about[name] != want {
					t.Errorf("%s is %q, want %q", name, about[name], want)
				}
			}
		})
	}
}

func TestVariablesOfTheSDK(t *testing.T) {
	c := &collector{received: make(chan *tracepb.ResourceSpans, 1)}
	shutdown := start(t, map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + c.serve(t),
		"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
		"OTEL_SERVICE_NAME":           "mine",
		"OTEL_RESOURCE_ATTRIBUTES":    "deployment.environment.name=lab,service.version=9",
		"OTEL_TRACES_SAMPLER":         "parentbased_always_off",
	}, slog.New(slog.DiscardHandler))

	if _, span := otel.Tracer("test").Start(t.Context(), "unwanted"); span.IsRecording() {
		t.Error("a root span is recorded against OTEL_TRACES_SAMPLER")
	}
	parent := otel.GetTextMapPropagator().Extract(t.Context(), propagation.MapCarrier{
		"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	})
	_, span := otel.Tracer("test").Start(parent, "wanted")
	span.End()
	if err := shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}

	spans := receive(t, c)
	about := attributes(spans)
	for name, want := range map[string]string{"service.name": "mine", "service.version": "9", "deployment.environment.name": "lab", "service.instance.id": "petal-1"} {
		if about[name] != want {
			t.Errorf("%s is %q, want %q", name, about[name], want)
		}
	}
	all := spans.GetScopeSpans()[0].GetSpans()
	if len(all) != 1 || all[0].GetName() != "wanted" || all[0].GetParentSpanId()[0] != 0xb7 {
		t.Errorf("arrived: %v, want one span, under the one that came from outside", all)
	}
}

func TestOffByDefault(t *testing.T) {
	shutdown := start(t, nil, nil)
	if err := goleak.Find(); err != nil {
		t.Errorf("tracing is off, yet: %v", err)
	}

	tracer := otel.Tracer("test")
	ctx, span := tracer.Start(t.Context(), "pass")
	if span.IsRecording() || span.SpanContext().IsValid() {
		t.Error("tracing is off, yet a span is recorded")
	}
	span.End()
	if allocated := testing.AllocsPerRun(100, func() {
		_, span := tracer.Start(ctx, "pass")
		span.End()
	}); allocated > 1 { // the context that carries the span
		t.Errorf("a span that goes nowhere allocates %v times", allocated)
	}

	// What a client began goes on to the next process, though this one adds nothing to it.
	const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	carrier := propagation.MapCarrier{"traceparent": traceparent}
	ctx = otel.GetTextMapPropagator().Extract(t.Context(), carrier)
	ctx, _ = tracer.Start(ctx, "request")
	onward := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, onward)
	if onward["traceparent"] != traceparent {
		t.Errorf("traceparent goes on as %q, want %q", onward["traceparent"], traceparent)
	}
	if err := shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// A collector that is away, or takes connections and never answers, costs nothing but the spans.
func TestCollectorAway(t *testing.T) {
	mute := listen(t)
	var held sync.WaitGroup
	var connections []net.Conn
	held.Go(func() {
		for {
			connection, err := mute.Accept()
			if err != nil {
				return
			}
			connections = append(connections, connection)
		}
	})
	defer func() {
		mute.Close()
		held.Wait()
		for _, connection := range connections {
			connection.Close()
		}
	}()
	gone := listen(t)
	gone.Close()

	for _, test := range []struct {
		protocol Protocol
		name     string
		address  net.Addr
	}{
		{GRPC, "mute", mute.Addr()},
		{HTTP, "gone", gone.Addr()},
	} {
		t.Run(string(test.protocol)+" "+test.name, func(t *testing.T) {
			var log buffer
			shutdown := start(t, map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + test.address.String(),
				"OTEL_EXPORTER_OTLP_PROTOCOL": string(test.protocol),
			}, slog.New(slog.NewTextHandler(&log, nil)))

			finished := make(chan struct{})
			go func() {
				defer close(finished)
				tracer := otel.Tracer("test")
				for range 10_000 { // several times what the queue holds
					_, span := tracer.Start(t.Context(), "pass")
					span.End()
				}
				if err := shutdown(context.Background()); err != nil {
					t.Errorf("shutdown: %v", err)
				}
			}()
			select {
			case <-finished:
			case <-time.After(giveUp):
				t.Fatal("tracing waits for a collector that does not answer")
			}
			if text := log.String(); strings.Count(text, "\n") > 1 {
				t.Errorf("want one line at most, got:\n%s", text)
			}
		})
	}
}

func TestFailuresAreLoggedOnce(t *testing.T) {
	c := &collector{refuse: true, received: make(chan *tracepb.ResourceSpans, 1)}
	var log buffer
	exporter, err := newExporter(t.Context(), Export{Protocol: GRPC, Endpoint: "http://" + c.serve(t)})
	if err != nil {
		t.Fatal(err)
	}
	reporting := &reportingExporter{SpanExporter: exporter, log: slog.New(slog.NewTextHandler(&log, nil))}

	spans := ended(t)
	for range 3 {
		if err := reporting.ExportSpans(t.Context(), spans); err != nil {
			t.Fatal(err)
		}
	}
	c.refuse = false
	for range 3 {
		if err := reporting.ExportSpans(t.Context(), spans); err != nil {
			t.Fatal(err)
		}
		receive(t, c)
	}
	if err := reporting.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := log.String()
	if strings.Count(text, "do not reach") != 1 || strings.Count(text, "reach the collector again") != 1 || strings.Count(text, "\n") != 2 {
		t.Errorf("want one line when exporting begins to fail and one when it works again, got:\n%s", text)
	}
}

func TestErrorsOfTheSDKAreLoggedOnce(t *testing.T) {
	var log buffer
	handler := &onceHandler{log: slog.New(slog.NewTextHandler(&log, nil))}
	for range 2 {
		for i := range 2 * maxErrorsTold {
			handler.Handle(errorNumber(i))
		}
	}
	if lines := strings.Count(log.String(), "\n"); lines != maxErrorsTold {
		t.Errorf("%d lines, want %d", lines, maxErrorsTold)
	}
}

func TestUnknownWordsAreLogged(t *testing.T) {
	var log buffer
	start(t, map[string]string{"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_PROPAGATORS": "b3,tracecontext"}, slog.New(slog.NewTextHandler(&log, nil)))
	for _, word := range []string{"zipkin", "b3"} {
		if !strings.Contains(log.String(), "value="+word) {
			t.Errorf("nothing is said of %q:\n%s", word, log.String())
		}
	}
}

func TestStartRefuses(t *testing.T) {
	for _, cfg := range []Config{
		{Export: Export{Protocol: "udp"}},
		{Propagators: []string{"b3"}},
	} {
		if _, err := Start(t.Context(), cfg); err == nil {
			t.Errorf("Start takes %+v", cfg)
		}
	}
}

func TestNoPropagator(t *testing.T) {
	start(t, map[string]string{"OTEL_PROPAGATORS": "none"}, nil)
	carrier := propagation.MapCarrier{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	if trace.SpanContextFromContext(otel.GetTextMapPropagator().Extract(t.Context(), carrier)).IsValid() {
		t.Error("a trace context is taken from outside, against OTEL_PROPAGATORS=none")
	}
}

func receive(t *testing.T, c *collector) *tracepb.ResourceSpans {
	t.Helper()
	select {
	case spans := <-c.received:
		return spans
	case <-time.After(giveUp):
		t.Fatal("no span arrived at the collector")
		return nil
	}
}

func attributes(spans *tracepb.ResourceSpans) map[string]string {
	all := make(map[string]string)
	for _, attribute := range spans.GetResource().GetAttributes() {
		all[attribute.GetKey()] = attribute.GetValue().GetStringValue()
	}
	return all
}

// buffer is a bytes.Buffer that several goroutines may write to.
type buffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}
