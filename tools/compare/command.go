package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// complaintBytes of a failed command are shown: the end says what was wrong.
	complaintBytes = 600

	// patience is for a command that was ended, and for what it started and holds its output open.
	patience = 10 * time.Second
)

// runner runs a command to its end, and returns what it wrote on standard output and on standard error.
type runner func(ctx context.Context, command ...string) (out, errs []byte, err error)

// within runs commands that take no longer than limit.
func within(limit time.Duration) runner {
	return func(ctx context.Context, command ...string) (out, errs []byte, err error) {
		ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("ended after --limit %s", limit))
		defer cancel()
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		endAsGroup(cmd)
		cmd.WaitDelay = patience
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			said := strings.TrimSpace(string(stderr.Bytes()[max(0, stderr.Len()-complaintBytes):]))
			if cause := context.Cause(ctx); cause != nil {
				err, said = cause, ""
			}
			if said != "" {
				said = "\n" + said
			}
			return nil, nil, fmt.Errorf("%s %s: %w%s", filepath.Base(command[0]), strings.Join(command[1:], " "), err, said)
		}
		return stdout.Bytes(), stderr.Bytes(), nil
	}
}
