package shard_test

import (
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/pass"
	"github.com/daisy-llm/daisy/shard"
)

// TestAPassIsASpan: of the trace that it carries, below the span that sent it, and it says what was computed, and how long
// it had waited; its duration is that of the computation. A pass without a trace gives none.
func TestAPassIsASpan(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	s, w, run := start(t, func(c *shard.Config) { c.Tracer = provider.Tracer("") })
	run()
	load(t, s, whole(planID))
	begin(t, s, "c", 1)
	traced := step("c", 1, 0, 4, 5, 6)
	traced.TraceParent = "00-0102030405060708090a0b0c0d0e0f10-1112131415161718-01"
	traced.TraceState = "vendor=value"
	unknown := step("c", 9, 0, 4)
	unknown.TraceParent = traced.TraceParent
	malformed := step("c", 1, 1, 4)
	malformed.TraceParent = "00-nonsense"
	for _, p := range []*pass.Pass{traced, step("c", 1, 1, 7), unknown, malformed} {
		if err := s.Submit(p); err != nil {
			t.Fatal(err)
		}
		<-w.results
	}
	if _, _, err := s.Blocks(t.Context()); err != nil { // the loop has ended the last span by now
		t.Fatal(err)
	}
	ended := spans.Ended()
	if len(ended) != 3 {
		t.Fatalf("%d spans, want those of the passes with a trace context", len(ended))
	}
	first := ended[0]
	if first.Name() != "pass" || first.Parent().SpanID().String() != "1112131415161718" || !first.Parent().IsRemote() ||
		first.SpanContext().TraceID().String() != "0102030405060708090a0b0c0d0e0f10" || first.SpanContext().TraceState().String() != "vendor=value" {
		t.Errorf("%s %v below %v", first.Name(), first.SpanContext(), first.Parent())
	}
	if !first.EndTime().After(first.StartTime()) {
		t.Error("the computation took no time")
	}
	got := attribute.NewSet(first.Attributes()...)
	for key, want := range map[attribute.Key]attribute.Value{
		"daisy.shard":          attribute.StringValue("s"),
		"daisy.layers":         attribute.StringValue(model.Layers{Last: 4}.String()),
		"daisy.pass":           attribute.Int64Value(1),
		"daisy.first_position": attribute.Int64Value(0),
		"daisy.positions":      attribute.Int64Value(3),
	} {
		if v, ok := got.Value(key); !ok || v != want {
			t.Errorf("%s is %v, want %v", key, v.String(), want.String())
		}
	}
	if v, ok := got.Value("daisy.queue_us"); !ok || v.AsInt64() < 0 {
		t.Errorf("it waited %v", v.String())
	}
}
