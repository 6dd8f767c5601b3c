package telemetry

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// collector is an OTLP receiver on loopback.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	received chan *tracepb.ResourceSpans
	refuse   bool // answer with an error that is not worth trying again
}

func (c *collector) Export(_ context.Context, request *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	if c.refuse {
		return nil, status.Error(codes.InvalidArgument, "refused")
	}
	for _, spans := range request.GetResourceSpans() {
		c.received <- spans
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// serve answers over gRPC; it returns the collector's address.
func (c *collector) serve(t *testing.T) string {
	t.Helper()
	listener := listen(t)
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, c)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Errorf("collector: %v", err)
		}
	})
	return listener.Addr().String()
}

// serveHTTP answers over HTTP, at the path that the specification gives traces.
func (c *collector) serveHTTP(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collectorpb.ExportTraceServiceRequest
		if err != nil || r.Header.Get("Content-Type") != "application/x-protobuf" || proto.Unmarshal(body, &request) != nil {
			http.Error(w, "no OTLP request", http.StatusBadRequest)
			return
		}
		response, err := c.Export(r.Context(), &request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer, err := proto.Marshal(response)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		if _, err := w.Write(answer); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}
