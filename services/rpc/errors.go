package rpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	daisyv1 "github.com/daisy-llm/daisy/proto/daisy/v1"
	"github.com/daisy-llm/daisy/shard"
)

// errCorrupt: a payload's checksum does not fit.
var errCorrupt = errors.New("a frame was damaged on its way")

// errVersion: the other side speaks another version.
var errVersion = errors.New("versions differ")

// errNoFile: the shard has no file of the model, and does not know of what chunks it consists.
var errNoFile = errors.New("the shard has no file of the model")

// toStatus turns a domain error into gRPC's; the only place where that is done.
func toStatus(err error) error {
	code := codes.Internal
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, shard.ErrBusy):
		code = codes.ResourceExhausted
	case errors.Is(err, shard.ErrModel), errors.Is(err, shard.ErrMemory), errors.Is(err, errVersion):
		code = codes.FailedPrecondition
	case errors.Is(err, shard.ErrStopped):
		code = codes.Unavailable
	case errors.Is(err, errCorrupt):
		code = codes.DataLoss
	}
	return status.Error(code, err.Error())
}

// failureOf turns a command's error into its reply.
func failureOf(err error) *daisyv1.Failure {
	f := &daisyv1.Failure{Message: cut(err.Error(), maxPath)}
	switch {
	case errors.Is(err, errVersion):
		f.Kind = daisyv1.FailureKind_FAILURE_KIND_VERSION
	case errors.Is(err, shard.ErrNoFile):
		f.Kind = daisyv1.FailureKind_FAILURE_KIND_NO_FILE
	case errors.Is(err, shard.ErrModel):
		f.Kind = daisyv1.FailureKind_FAILURE_KIND_MODEL
	case errors.Is(err, shard.ErrMemory):
		f.Kind = daisyv1.FailureKind_FAILURE_KIND_MEMORY
	}
	return f
}

// errorOf is the coordinator's side of failureOf.
func errorOf(f *daisyv1.Failure) error {
	message := cut(f.GetMessage(), maxPath)
	switch f.GetKind() {
	case daisyv1.FailureKind_FAILURE_KIND_VERSION:
		return fmt.Errorf("%w: %s", pipeline.ErrVersion, message)
	case daisyv1.FailureKind_FAILURE_KIND_MODEL:
		return fmt.Errorf("%w: %s", pipeline.ErrModel, message)
	case daisyv1.FailureKind_FAILURE_KIND_NO_FILE:
		return fmt.Errorf("%w: %s", errNoFile, message)
	case daisyv1.FailureKind_FAILURE_KIND_MEMORY:
		return fmt.Errorf("%w: %s", pipeline.ErrMemory, message)
	}
	return errors.New(message)
}

// fromStatus leaves gRPC's framing out of an error's text, which people are to read; its code is still found in it.
func fromStatus(err error) error {
	if s, ok := status.FromError(err); ok && err != nil {
		return &remoteError{s.Message(), err}
	}
	return err
}

// remoteError is a gRPC error that reads as the other side wrote it.
type remoteError struct {
	text string
	err  error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.err }
