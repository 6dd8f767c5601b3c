// Package telemetry sets up OpenTelemetry's SDK, and is the only package that knows it; all others speak the API.
//
// It owns the exporter and its queue, and the process-wide tracer provider and propagator, because that is where the API
// looks for them. cmd/daisy calls Start once, early, and the function it returns once, at the end.
//
// Invariant: tracing never slows or stops serving. Where no variable asks for traces there is no exporter, no goroutine,
// and every span is the API's no-op. Where one does, ended spans go into a bounded queue, which drops them when the
// collector is slow or away. It refuses a configuration that cannot work, and says which variable to change.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// A batch is tried again for so long, then dropped. Longer only helps when the queue holds what comes in meanwhile.
const retryLimit = 10 * time.Second

// At the end, what is queued has so long to leave: a collector that answers needs a fraction of it, and one that does not
// must not keep a process from ending.
const flushLimit = time.Second

// Config is what Start needs. FromEnv fills it from the environment; the caller adds who the process is.
type Config struct {
	// ServiceName is the process's role, such as "daisy-shard". OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override it.
	ServiceName string
	// ServiceVersion is the version of the binary.
	ServiceVersion string
	// InstanceID tells processes of one role apart: a shard's name.
	InstanceID string

	// Export says where traces go; its zero value is nowhere.
	Export Export
	// Propagators are "tracecontext", "baggage" or "none"; empty is W3C's trace context alone.
	Propagators []string

	// Log receives what goes wrong with exporting, once until it changes. Nil is slog.Default().
	Log *slog.Logger

	ignored []string // words in the variables that Daisy does not know
}

// Start makes the process trace as cfg says. The function it returns sends what is still queued, within two seconds and
// within its context, and stops exporting.
func Start(ctx context.Context, cfg Config) (shutdown func(context.Context) error, err error) {
	log := cfg.Log
	if log == nil {
		log = slog.Default()
	}
	for _, word := range cfg.ignored {
		log.Warn("an OTEL_ variable asks for what Daisy does not have", "value", word)
	}
	propagator, err := propagatorOf(cfg.Propagators)
	if err != nil {
		return nil, err
	}

	if cfg.Export.Protocol == "" {
		otel.SetTextMapPropagator(propagator)
		otel.SetTracerProvider(noop.NewTracerProvider())
		return func(context.Context) error { return nil }, nil
	}

	exporter, err := newExporter(ctx, cfg.Export)
	if err != nil {
		return nil, fmt.Errorf("set up the export of traces over %s: %w", cfg.Export.Protocol, err)
	}
	about, err := describe(ctx, cfg)
	if err != nil {
		log.Warn("a part of OTEL_RESOURCE_ATTRIBUTES was not understood", "error", err)
	}
	otel.SetErrorHandler(&onceHandler{log: log})
	reporting := &reportingExporter{SpanExporter: exporter, log: log}
	// Sampler, span limits and the queue's size come from their variables, which the provider reads.
	provider := trace.NewTracerProvider(trace.WithBatcher(reporting), trace.WithResource(about))
	otel.SetTextMapPropagator(propagator)
	otel.SetTracerProvider(provider)

	return func(ctx context.Context) error {
		flush, cancel := context.WithTimeout(ctx, flushLimit)
		defer cancel()
		err := provider.Shutdown(flush)
		if flush.Err() == nil {
			return err
		}
		// The queue waits for an export that is still being tried, and the provider has given up waiting for the queue.
		// Stopping the exporter with a context that has ended breaks the export off; it then reports the loss itself.
		if err := exporter.Shutdown(flush); err != nil && !errors.Is(err, flush.Err()) {
			return fmt.Errorf("stop the export of traces: %w", err)
		}
		return nil
	}, nil
}

func newExporter(ctx context.Context, export Export) (trace.SpanExporter, error) {
	switch export.Protocol {
	case GRPC:
		options := []otlptracegrpc.Option{otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: time.Second, MaxInterval: retryLimit / 2, MaxElapsedTime: retryLimit,
		})}
		if export.Endpoint != "" {
			options = append(options, otlptracegrpc.WithEndpointURL(export.Endpoint))
		}
		return otlptracegrpc.New(ctx, options...)
	case HTTP:
		options := []otlptracehttp.Option{otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: time.Second, MaxInterval: retryLimit / 2, MaxElapsedTime: retryLimit,
		})}
		if export.Endpoint != "" {
			options = append(options, otlptracehttp.WithEndpointURL(export.Endpoint))
		}
		return otlptracehttp.New(ctx, options...)
	}
	return nil, fmt.Errorf("the protocol %q is not known: use %s or %s", export.Protocol, GRPC, HTTP)
}

// describe says who the process is. What the variables say comes last, and so wins.
func describe(ctx context.Context, cfg Config) (*resource.Resource, error) {
	return resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithAttributes(
			attribute.String("service.name", cfg.ServiceName),
			attribute.String("service.version", cfg.ServiceVersion),
			attribute.String("service.instance.id", cfg.InstanceID),
			attribute.Int("process.pid", os.Getpid()),
		),
		resource.WithFromEnv(),
	)
}

func propagatorOf(names []string) (propagation.TextMapPropagator, error) {
	if len(names) == 0 {
		return propagation.TraceContext{}, nil
	}
	var all []propagation.TextMapPropagator
	for _, name := range names {
		switch name {
		case "tracecontext":
			all = append(all, propagation.TraceContext{})
		case "baggage":
			all = append(all, propagation.Baggage{})
		case "none":
			return propagation.NewCompositeTextMapPropagator(), nil
		default:
			return nil, fmt.Errorf("the propagator %q is not known: use tracecontext, baggage or none", name)
		}
	}
	return propagation.NewCompositeTextMapPropagator(all...), nil
}
