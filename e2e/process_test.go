//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the daisy that is tested, and modelFile the default model on this machine.
var binary, modelFile string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "daisy-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := 1
	if err := prepare(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func prepare(dir string) error {
	binary = filepath.Join(dir, "daisy")
	build := exec.Command("go", "build", "-o", binary, "../cmd/daisy")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build daisy: %w", err)
	}
	pull := exec.Command(binary, "pull")
	pull.Stderr = os.Stderr
	out, err := pull.Output()
	if err != nil {
		return fmt.Errorf("fetch the default model: %w", err)
	}
	modelFile, _, _ = strings.Cut(string(out), "\n")
	return nil
}

// markVariable is in the environment of every process that a test starts, and so in that of the processes they start: it
// finds those that are left.
const markVariable = "DAISY_E2E_MARK"

// process is a daisy that a test started.
type process struct {
	cmd    *exec.Cmd
	mark   string
	stdout *buffer
	stderr *buffer
	done   chan struct{} // closed once it was waited for
	err    error
}

// start starts a daisy. When the test ends it is killed, if it is still there; what it left is an error.
func start(t testing.TB, args ...string) *process {
	t.Helper()
	p := newProcess(t, args...)
	p.run(t)
	return p
}

func newProcess(t testing.TB, args ...string) *process {
	p := &process{cmd: exec.Command(binary, args...), stdout: &buffer{}, stderr: &buffer{}, done: make(chan struct{})}
	p.mark = fmt.Sprintf("%d-%d-%s", os.Getpid(), time.Now().UnixNano(), strings.ReplaceAll(t.Name(), "/", "-"))
	p.cmd.Env = append(os.Environ(), markVariable+"="+p.mark)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	// What inherits the pipes and stays must not make Wait wait for it: it is to be found, not waited for.
	p.cmd.WaitDelay = time.Second
	return p
}

func (p *process) run(t testing.TB) {
	t.Helper()
	// If the tests are killed, what they started must go as well. Linux watches the thread that started it.
	if p.cmd.SysProcAttr == nil {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		p.checkNothingLeft(t)
		if t.Failed() {
			t.Logf("%s\nstdout:\n%s\nstderr:\n%s", p, p.stdout, p.stderr)
		}
	})
}

func (p *process) String() string { return "daisy " + strings.Join(p.cmd.Args[1:], " ") }

// finish waits until the process has ended by itself, and returns its exit code.
func (p *process) finish(t testing.TB) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(3 * time.Minute):
		t.Fatalf("%s does not end", p)
	}
	p.checkNothingLeft(t)
	var exit *exec.ExitError
	if errors.As(p.err, &exit) && exit.Exited() {
		return exit.ExitCode()
	}
	if p.err != nil {
		t.Fatalf("%s: %v", p, p.err)
	}
	return 0
}

// signal sends the process, and it alone, a signal.
func (p *process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s: %v", p, err)
	}
}

// checkNothingLeft: what it started is gone when it is, or very soon after.
func (p *process) checkNothingLeft(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		left := marked(p.mark)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			for _, pid := range left {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			t.Errorf("%s left processes %v", p, left)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// marked lists the running processes that have a mark in their environment; those that only wait to be collected by
// whoever inherited them do not run.
func marked(mark string) (pids []int) {
	environments, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environments {
		raw, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(raw, []byte(markVariable+"="+mark+"\x00")) {
			continue
		}
		dir := filepath.Dir(path)
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		_, state, ok := bytes.Cut(stat, []byte(") "))
		if err != nil || !ok || state[0] == 'Z' || state[0] == 'X' {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		pids = append(pids, pid)
	}
	return pids
}

// daisy runs a command to its end.
func daisy(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	p := start(t, args...)
	code = p.finish(t)
	return p.stdout.String(), p.stderr.String(), code
}

// fails runs a command that must fail, and returns the one line in which it says why.
func fails(t testing.TB, args ...string) string {
	t.Helper()
	_, stderr, code := daisy(t, args...)
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	last := lines[len(lines)-1]
	if code == 0 || !strings.HasPrefix(last, "daisy: ") {
		t.Fatalf("daisy %s: exit code %d, and at last it says %q", strings.Join(args, " "), code, last)
	}
	return last
}

// waitFor waits until something holds that must come true soon.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// buffer collects what a process writes while a test reads it.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
