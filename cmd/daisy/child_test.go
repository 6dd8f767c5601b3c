package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asProcess makes this test binary one of the processes that the tests start; which one, its first argument says.
func asProcess(role string, args []string) int {
	switch role {
	case "child": // ends in good order with its parent
		ended := make(chan struct{})
		endWithParent(os.Stdin, 10*time.Second, func() { close(ended) })
		fmt.Println("up")
		<-ended
		fmt.Println("ending")
		return 0
	case "stubborn": // does not hear that it should end
		fmt.Println("up")
		time.Sleep(time.Minute)
		return 0
	case "late": // hears it, and takes too long
		endWithParent(os.Stdin, 10*time.Millisecond, func() { fmt.Println("ending") })
		fmt.Println("up")
		time.Sleep(time.Minute)
		return 0
	case "failing":
		fmt.Println("some line")
		fmt.Fprintln(os.Stderr, "daisy: the port is taken")
		return 1
	case "crashing":
		fmt.Fprintln(os.Stderr, "panic: oh")
		return 2
	case "parent": // starts a child of the role its argument names, says its pid, and does nothing more
		output := &lineLog{}
		c, err := startChild("c", os.Args[0], append([]string{processArgument}, args...), output)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		for output.lastLine() != "up" {
			time.Sleep(time.Millisecond)
		}
		fmt.Println(c.pid)
		time.Sleep(time.Minute)
	}
	return 3
}

func startTestChild(t *testing.T, role string) *child {
	t.Helper()
	c, err := startChild("c", os.Args[0], []string{processArgument, role}, &lineLog{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

// waitUp waits until a child runs.
func waitUp(t *testing.T, c *child) {
	t.Helper()
	waitFor(t, "the child to be up", func() bool { return c.output.lastLine() == "up" })
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestChildEndsWhenAsked(t *testing.T) {
	c := startTestChild(t, "child")
	waitUp(t, c)
	endChildren([]*child{c}, time.Minute)
	if c.err != nil || c.output.lastLine() != "ending" {
		t.Errorf("ended with %v, its last line %q", c.err, c.output.lastLine())
	}
}

func TestChildIsKilledWhenItDoesNotEnd(t *testing.T) {
	children := []*child{startTestChild(t, "stubborn"), startTestChild(t, "child"), startTestChild(t, "stubborn")}
	for _, c := range children {
		waitUp(t, c)
	}
	endChildren(children, 10*time.Millisecond)
	for _, c := range children {
		select {
		case <-c.done:
		default:
			t.Errorf("%d is still there", c.pid)
		}
	}
	var exit *exec.ExitError
	if !errors.As(children[0].err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the stubborn one ended with %v", children[0].err)
	}
}

func TestChildThatCannotEndExits(t *testing.T) {
	c := startTestChild(t, "late")
	waitUp(t, c)
	endChildren([]*child{c}, time.Minute)
	if c.err == nil || c.output.lastLine() != "ending" {
		t.Errorf("ended with %v, its last line %q", c.err, c.output.lastLine())
	}
}

func TestChildFailure(t *testing.T) {
	for role, want := range map[string]string{
		"failing":  "shard c: the port is taken",
		"crashing": "shard c: exit status 2, its last line: panic: oh",
		"unknown":  "shard c: exit status 3",
	} {
		c := startTestChild(t, role)
		<-c.done
		if got := c.failure().Error(); got != want {
			t.Errorf("%s: %q, want %q", role, got, want)
		}
	}
	if _, err := startChild("c", "/nowhere/at/all", nil, &lineLog{}); err == nil {
		t.Error("a program that is not there was started")
	}
}

// However a parent dies, no child is left: with kill -9 it cannot do anything about it any more.
func TestChildDoesNotOutliveItsParent(t *testing.T) {
	roles := []string{"child"}
	if childAttributesKill {
		roles = append(roles, "stubborn")
	}
	for _, role := range roles {
		t.Run(role, func(t *testing.T) {
			parent := exec.Command(os.Args[0], processArgument, "parent", role)
			out, err := parent.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := parent.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			pid, parseErr := strconv.Atoi(strings.TrimSpace(line))
			parent.Process.Kill()
			parent.Wait()
			if err != nil || parseErr != nil {
				t.Fatalf("the parent said %q (%v)", line, err)
			}
			waitFor(t, "the child to go", func() bool { return !alive(pid) })
		})
	}
}
