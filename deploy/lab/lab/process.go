//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a program that runs in a machine.
type Process struct {
	Cmd  *exec.Cmd
	Done <-chan struct{} // closed once it has ended and was waited for

	err error
}

// Start starts a command in the machine: in its network and under its limits from the first instruction, in a process group of its own, and killed
// if the lab ends in any way. The caller does not Wait for the command.
func (m *Machine) Start(command *exec.Cmd) (*Process, error) {
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.Setpgid = true
	// The kernel watches the thread that starts a process, which is why it waits for the process.
	command.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if command.WaitDelay == 0 {
		command.WaitDelay = time.Second // for what the process leaves behind with its output open
	}
	done := make(chan struct{})
	p := &Process{Cmd: command, Done: done}
	started := make(chan error)
	m.waiting.Add(1)
	go apart(func() {
		defer m.waiting.Done()
		err := unix.Setns(m.namespace, unix.CLONE_NEWNET)
		if err == nil {
			err = m.group.Start(command.SysProcAttr, command.Start)
		}
		if err != nil && command.Process != nil { // it started, but the thread did not come back
			command.Process.Kill()
			command.Wait()
		}
		started <- err
		if err == nil {
			p.err = command.Wait()
			close(done)
		}
	})
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s in machine %s: %w", command.Path, m.Name, err)
	}
	return p, nil
}

// Signal sends the process a signal. Machine.Signal reaches those that it started, too.
func (p *Process) Signal(signal syscall.Signal) error { return p.Cmd.Process.Signal(signal) }

// Wait waits until the process has ended, and says how.
func (p *Process) Wait() error {
	<-p.Done
	return p.err
}

// Enter moves this process into a machine of a lab that runs in another, and then becomes the program. It returns only if that fails.
func Enter(machine MachineRecord, path string, args, environment []string) error {
	runtime.LockOSThread()
	for _, file := range machine.Members {
		if err := os.WriteFile(file, []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			return fmt.Errorf("enter machine %s: %w", machine.Name, err)
		}
	}
	namespace, err := unix.Open(machine.Namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("enter machine %s: %w", machine.Name, err)
	}
	if err := unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter machine %s: %w", machine.Name, err)
	}
	return fmt.Errorf("start %s: %w", path, unix.Exec(path, args, environment))
}
