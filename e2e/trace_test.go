//go:build linux

package e2e

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// span is what a collector learnt of one.
type span struct {
	trace, id, parent string
	name, service     string
	attributes        map[string]string
}

// TestTrace: where the standard variables ask for it, a request is one trace through the coordinator and every shard.
func TestTrace(t *testing.T) {
	var mu sync.Mutex
	var spans []span
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(raw, &request) != nil {
			http.Error(w, "not OTLP", http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		spans = append(spans, spansOf(&request)...)
	}))
	defer receiver.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")

	c := up(t, 2)
	res, err := http.Post("http://"+c.address+"/v1/completions", "application/json", strings.NewReader(`{"prompt": [1, 2, 3], "max_tokens": 4, "ignore_eos": true}`))
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(err, res)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	trace := res.Header.Get("X-Trace-Id")
	c.end(t) // and what is queued goes out

	mu.Lock()
	defer mu.Unlock()
	byID := map[string]span{}
	count := map[string]int{}
	for _, s := range spans {
		if s.trace == trace {
			byID[s.id] = s
			count[s.name]++
		}
	}
	for name, want := range map[string]int{"POST /v1/completions": 1, "generate": 1, "prompt": 1, "decode": 1, "pass": 2 * 4} {
		if count[name] != want {
			t.Errorf("%d spans %q in the trace, want %d: %v", count[name], name, want, count)
		}
	}
	layers := map[string]int{}
	for _, s := range byID {
		parent := byID[s.parent]
		if want, ok := map[string]string{"generate": "POST /v1/completions", "prompt": "generate", "decode": "generate"}[s.name]; ok && parent.name != want {
			t.Errorf("%q lies below %q", s.name, parent.name)
		}
		if s.name != "pass" {
			continue
		}
		layers[s.attributes["daisy.layers"]]++
		if s.service != "daisy-shard" || parent.name != "prompt" && parent.name != "decode" || s.attributes["daisy.positions"] == "" {
			t.Errorf("a pass %+v of %q below %q", s, s.service, parent.name)
		}
	}
	if len(layers) != 2 {
		t.Errorf("passes through layers %v, want two blocks", layers)
	}
}

func spansOf(r *collector.ExportTraceServiceRequest) (spans []span) {
	for _, resource := range r.ResourceSpans {
		service := ""
		for _, a := range resource.Resource.Attributes {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				attributes := map[string]string{}
				for _, a := range s.Attributes {
					attributes[a.Key] = a.Value.String()
				}
				spans = append(spans, span{
					trace: hex.EncodeToString(s.TraceId), id: hex.EncodeToString(s.SpanId), parent: hex.EncodeToString(s.ParentSpanId),
					name: s.Name, service: service, attributes: attributes,
				})
			}
		}
	}
	return spans
}
