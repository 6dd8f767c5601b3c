// Command daisy serves a language model from a chain of ordinary machines.
//
// It is one binary: `daisy run` and `daisy up` start a whole cluster on this machine, `daisy coordinator` and
// `daisy shard` are its two kinds of process, the other commands look at clusters and models. This package holds flags,
// wiring and what a terminal shows, no policy. The environment is read here and nowhere else, in environment.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// exitInterrupted is what shells expect of a command that Ctrl-C ended: 128 + SIGINT.
const exitInterrupted = 130

// errorPrefix begins the line in which a process says why it failed.
const errorPrefix = "daisy: "

func main() {
	ctx, signals := watchSignals(context.Background())
	c := &cli{
		in:      os.Stdin,
		out:     os.Stdout,
		console: newConsole(os.Stderr),
		env:     readEnvironment(os.LookupEnv),
		signals: signals,
	}
	err := newRootCommand(c).ExecuteContext(ctx)
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	signals.stop()
	os.Exit(report(c.console, err))
}

// report prints an error on one line and returns the exit code that goes with it.
func report(stderr *console, err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	}
	fmt.Fprintf(stderr, "%s%s\n", errorPrefix, oneLine(err.Error()))
	return 1
}

// oneLine joins the lines of a message, for errors that quote other programs.
func oneLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "; ")
}
