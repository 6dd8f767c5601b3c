package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

// signals turns Ctrl-C, SIGTERM and the end of the terminal into the end of a context. The second one exits at once: shards notice by
// themselves that their parent is gone.
type signals struct {
	received chan os.Signal
	end      context.CancelCauseFunc

	mu      sync.Mutex
	divert  func() bool // what Ctrl-C does instead, if it returns true
	restore func()      // leaves the terminal as it was found
}

// watchSignals returns a context that the first signal ends, with errInterrupted as its cause.
func watchSignals(parent context.Context) (context.Context, *signals) {
	ctx, end := context.WithCancelCause(parent)
	s := &signals{received: make(chan os.Signal, 2), end: end}
	signal.Notify(s.received, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup asks to outlive the terminal
		signal.Notify(s.received, syscall.SIGHUP)
	}
	go s.loop()
	return ctx, s
}

func (s *signals) loop() {
	ending := false
	for sig := range s.received {
		if sig == os.Interrupt && s.diverted() {
			continue
		}
		if ending {
			s.restoreTerminal()
			os.Exit(exitInterrupted)
		}
		ending = true
		s.end(errInterrupted)
	}
}

func (s *signals) diverted() bool {
	s.mu.Lock()
	divert := s.divert
	s.mu.Unlock()
	return divert != nil && divert()
}

// onInterrupt makes Ctrl-C call f, until restore is called; where f returns false, Ctrl-C does what it always does.
func (s *signals) onInterrupt(f func() bool) (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.divert
	s.divert = f
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.divert = before
	}
}

// onExit has f called when a signal makes the process exit at once, until forget is called.
func (s *signals) onExit(f func()) (forget func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restore = f
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.restore = nil
	}
}

func (s *signals) restoreTerminal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.restore != nil {
		s.restore()
	}
}

func (s *signals) stop() {
	signal.Stop(s.received)
	close(s.received)
	s.end(nil)
}
