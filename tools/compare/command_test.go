package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// sleeper makes this test's binary a command that calls the address it is given, and sleeps; "parent" starts such a one and waits.
const sleeper = "COMPARE_TEST_SLEEPER"

func TestMain(m *testing.M) {
	switch address := os.Getenv(sleeper); {
	case address == "":
		os.Exit(m.Run())
	case len(os.Args) == 2 && os.Args[1] == "parent":
		child := exec.Command(os.Args[0], "child")
		child.Stdout = os.Stdout
		if err := child.Run(); err != nil {
			os.Exit(1)
		}
	default:
		if _, err := net.Dial("tcp", address); err != nil {
			os.Exit(1)
		}
		time.Sleep(time.Hour)
	}
}

func TestCommandsEndInTime(t *testing.T) {
	listen(t)
	_, _, err := within(50*time.Millisecond)(t.Context(), os.Args[0], "child")
	if err == nil || !strings.Contains(err.Error(), "--limit 50ms") {
		t.Errorf("ended with %v", err)
	}
}

// Whoever is told to stop ends the command.
func TestCommandsEnd(t *testing.T) { endInTheMiddle(t, "child") }

// endInTheMiddle ends a command once it, or what it started, has called, and wants the caller to be gone.
func endInTheMiddle(t *testing.T, command string) {
	calls := listen(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	ended := make(chan error, 1)
	go func() {
		_, _, err := within(time.Hour)(ctx, os.Args[0], command)
		ended <- err
	}()
	call, err := calls.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	cancel(errors.New("enough"))
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("ended with %v", err)
	}
	if err := call.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(call); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("what was started lives on")
	}
}

// listen is where the sleepers of this test call.
func listen(t *testing.T) *net.TCPListener {
	calls, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { calls.Close() })
	if err := calls.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Setenv(sleeper, calls.Addr().String())
	return calls
}

func TestCommandsSayWhatWasWrong(t *testing.T) {
	_, _, err := within(time.Minute)(t.Context(), "go", "nonsense")
	if err == nil || !strings.Contains(err.Error(), "unknown command") {
		t.Errorf("ended with %v", err)
	}
	out, _, err := within(time.Minute)(t.Context(), "go", "version")
	if err != nil || !strings.HasPrefix(string(out), "go version") {
		t.Errorf("%q, %v", out, err)
	}
}
