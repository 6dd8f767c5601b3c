package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// child is a process that cannot outlive this one.
//
// It holds the read end of its lifeline, a pipe, as its standard input; only this process holds the write end. When
// that closes, because it is closed or because this process died in whatever way, the child ends itself in good order
// (see endWithParent). On Linux the kernel kills it as well when this process dies. It has a process group of its own,
// so that Ctrl-C in a terminal reaches this process alone, which then decides the order in which things end.
type child struct {
	name     string
	pid      int
	lifeline *os.File
	process  *os.Process
	output   *lineLog
	done     chan struct{} // closed once the process was waited for
	err      error         // how it ended; set before done is closed
}

// startChild starts a program; what it writes goes line by line to output.
func startChild(name, program string, args []string, output *lineLog) (*child, error) {
	hold, lifeline, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	cmd := exec.Command(program, args...)
	cmd.Stdin = hold
	cmd.Stdout, cmd.Stderr = output, output
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = childAttributes()

	c := &child{name: name, lifeline: lifeline, output: output, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Linux watches the thread that started a child, not the process: keep it for as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		hold.Close()
		started <- err
		if err != nil {
			return
		}
		c.err = cmd.Wait()
		output.flush()
		lifeline.Close()
		close(c.done)
	}()
	if err := <-started; err != nil {
		lifeline.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c.pid, c.process = cmd.Process.Pid, cmd.Process
	return c, nil
}

// end asks the child to end itself.
func (c *child) end() { c.lifeline.Close() }

// kill ends a child that did not end itself, and waits until it is gone.
func (c *child) kill() {
	c.process.Kill()
	<-c.done
}

// failure says why a child that has ended did so, in its own words if it had any.
func (c *child) failure() error {
	last := c.output.lastLine()
	how := "it ended"
	if c.err != nil {
		how = c.err.Error()
	}
	var exit *exec.ExitError
	if message, ok := strings.CutPrefix(last, errorPrefix); ok && (c.err == nil || errors.As(c.err, &exit)) {
		return fmt.Errorf("shard %s: %s", c.name, message)
	}
	if last == "" {
		return fmt.Errorf("shard %s: %s", c.name, how)
	}
	return fmt.Errorf("shard %s: %s, its last line: %s", c.name, how, last)
}

// endChildren asks all to end, and kills those that are still there after the grace.
func endChildren(children []*child, grace time.Duration) {
	for _, c := range children {
		c.end()
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	late := false
	for _, c := range children {
		if !late {
			select {
			case <-c.done:
				continue
			case <-timer.C:
				late = true
			}
		}
		c.kill()
	}
}

// endWithParent calls end when the parent that holds the other end of the lifeline is gone or asks for the end, and
// exits the hard way if the process is still there after the grace.
func endWithParent(lifeline io.Reader, grace time.Duration, end func()) {
	go func() {
		io.Copy(io.Discard, lifeline)
		end()
		time.Sleep(grace)
		os.Exit(1)
	}()
}
