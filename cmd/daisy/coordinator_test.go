package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"testing"
)

// A request that is cut short because the coordinator ends must not look as if its client had gone.
func TestRequestsHearThatTheServerStops(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	cause := make(chan error, 1)
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		stop()
		<-r.Context().Done()
		cause <- context.Cause(r.Context())
	})
	served := make(chan error, 1)
	go func() { served <- serveHTTP(ctx, l, handler, slog.New(slog.DiscardHandler)) }()
	response, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if err := <-cause; !errors.Is(err, errStopping) {
		t.Errorf("the request ended with %v", err)
	}
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Errorf("serving ended with %v", err)
	}
}
