package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/sdk/trace"
)

// reportingExporter logs when the collector goes away and when it comes back, not every batch in between.
type reportingExporter struct {
	trace.SpanExporter
	log     *slog.Logger
	failing atomic.Bool
}

// ExportSpans never returns an error: it ends here, logged.
func (e *reportingExporter) ExportSpans(ctx context.Context, spans []trace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil && e.failing.CompareAndSwap(false, true):
		e.log.Warn("traces do not reach the collector; they are dropped until they do", "error", err)
	case err == nil && e.failing.CompareAndSwap(true, false):
		e.log.Info("traces reach the collector again")
	}
	return nil
}

// More different errors than this are not worth a reader's time, nor the memory to tell them apart.
const maxErrorsTold = 32

// onceHandler logs each error of the SDK once.
type onceHandler struct {
	log *slog.Logger

	mu   sync.Mutex
	told map[string]bool
}

func (h *onceHandler) Handle(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := err.Error()
	if h.told[text] || len(h.told) >= maxErrorsTold {
		return
	}
	if h.told == nil {
		h.told = make(map[string]bool)
	}
	h.told[text] = true
	h.log.Warn("tracing", "error", err)
}
