//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
)

func interrupt(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
}

func TestSignalEndsTheContext(t *testing.T) {
	ctx, s := watchSignals(t.Context())
	defer s.stop()
	interrupt(t)
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), errInterrupted) {
		t.Errorf("cause %v", context.Cause(ctx))
	}
}

func TestHangUpEndsTheContext(t *testing.T) {
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGHUP) // also where the test itself runs under nohup
	defer signal.Stop(heard)
	ctx, s := watchSignals(t.Context())
	defer s.stop()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), errInterrupted) {
		t.Errorf("cause %v", context.Cause(ctx))
	}
}

func TestSignalDiverted(t *testing.T) {
	ctx, s := watchSignals(t.Context())
	defer s.stop()
	diverted := make(chan struct{}, 1)
	first := true
	restore := s.onInterrupt(func() bool {
		defer func() { first = false }()
		if first {
			diverted <- struct{}{}
		}
		return first
	})
	defer restore()
	interrupt(t)
	<-diverted
	if ctx.Err() != nil {
		t.Fatal("a signal that was diverted ended the context")
	}
	interrupt(t) // this one is not
	<-ctx.Done()
}

func TestUntilInterrupted(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct{ cause, err, want error }{
		{errInterrupted, context.Canceled, nil},
		{errInterrupted, fmt.Errorf("serve: %w", context.Canceled), nil},
		{errInterrupted, errInterrupted, nil},
		{errInterrupted, broken, broken},
		{errInterrupted, nil, nil},
		{broken, context.Canceled, context.Canceled},
		{nil, broken, broken},
	} {
		ctx, end := context.WithCancelCause(t.Context())
		if test.cause != nil {
			end(test.cause)
		}
		cmd := untilInterrupted(&cobra.Command{RunE: func(*cobra.Command, []string) error { return test.err }})
		cmd.SetContext(ctx)
		if err := cmd.RunE(cmd, nil); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("ended by %v with %v: %v, want %v", test.cause, test.err, err, test.want)
		}
		end(nil)
	}
}
