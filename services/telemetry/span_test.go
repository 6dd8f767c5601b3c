package telemetry

import (
	"context"
	"fmt"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace"
)

type errorNumber int

func (e errorNumber) Error() string { return fmt.Sprint("error ", int(e)) }

// ended gives one span that has ended, as the queue gives it to an exporter.
func ended(t *testing.T) []trace.ReadOnlySpan {
	t.Helper()
	var kept keeper
	provider := trace.NewTracerProvider(trace.WithSyncer(&kept))
	_, span := provider.Tracer("test").Start(t.Context(), "pass")
	span.End()
	if len(kept.spans) != 1 {
		t.Fatalf("%d spans ended, want 1", len(kept.spans))
	}
	return kept.spans
}

type keeper struct{ spans []trace.ReadOnlySpan }

func (k *keeper) ExportSpans(_ context.Context, spans []trace.ReadOnlySpan) error {
	k.spans = append(k.spans, spans...)
	return nil
}

func (k *keeper) Shutdown(context.Context) error { return nil }
