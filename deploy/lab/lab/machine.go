//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/daisy-llm/daisy/deploy/lab/cgroup"
)

// Machine is one of a lab's.
type Machine struct {
	Name string
	Addr netip.Addr
	Disk string // a folder of its own, removed with the lab

	index     int
	namespace int      // a file descriptor that keeps its network
	device    *os.File // the wire's end of its link
	group     *cgroup.Group
	waiting   sync.WaitGroup // for its processes
}

// plug makes a machine.
func (l *Lab) plug(config MachineConfig, addr netip.Addr, tree *cgroup.Tree) (*Machine, error) {
	m := &Machine{Name: config.Name, Addr: addr, Disk: l.record.folder(config.Name), namespace: -1}
	l.Machines = append(l.Machines, m) // at once: what follows is closed, even if it is only half done
	if err := os.Mkdir(m.Disk, 0o700); err != nil {
		return nil, err
	}
	var err error
	if m.group, err = tree.Make(prefix+l.ID, m.Name, config.limits()); err != nil {
		return nil, err
	}
	made := make(chan error)
	go apart(func() { made <- m.connect(config.Rate) })
	return m, <-made
}

// apart calls f on a thread of its own, which ends with it: whatever network f leaves it in, nobody else gets there. The main thread is not fit
// for that, because it never ends.
func apart(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f() // and the goroutine ends without unlocking the thread
		return
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		apart(f)
	}()
	<-ended
	runtime.UnlockOSThread()
}

// connect makes the machine's network, and leaves the thread that calls it there.
func (m *Machine) connect(rate int64) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	var err error
	if m.namespace, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("hold the network namespace: %w", err)
	}
	m.device, err = openDevice(m.Addr, rate)
	return err
}

// Within calls f on a thread that is in the machine's network: sockets that it opens are the machine's, and stay so. Goroutines that it
// starts are not there.
func (m *Machine) Within(f func() error) error {
	done := make(chan error)
	go apart(func() {
		if err := unix.Setns(m.namespace, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network of machine %s: %w", m.Name, err)
			return
		}
		done <- f()
	})
	return <-done
}

// Dial connects from this machine to an address, given in figures.
func (m *Machine) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	return conn, m.Within(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
}

// Listen listens on this machine, at an address given in figures.
func (m *Machine) Listen(network, address string) (listener net.Listener, err error) {
	return listener, m.Within(func() (err error) {
		listener, err = net.Listen(network, address)
		return err
	})
}

// Signal sends a signal to every process in the machine.
func (m *Machine) Signal(signal syscall.Signal) error {
	if err := m.group.Signal(signal); err != nil {
		return fmt.Errorf("machine %s: %w", m.Name, err)
	}
	return nil
}

// Processes are the ids of those in the machine.
func (m *Machine) Processes() ([]int, error) { return m.group.Processes() }

// Usage is what the machine's processes use, and have used.
func (m *Machine) Usage() (cgroup.Usage, error) { return m.group.Usage() }

// Copy puts a copy of a file onto the machine's disk that is in nobody's cache yet: when the machine reads it, that counts as its memory.
func (m *Machine) Copy(path string) (copied string, err error) {
	from, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer from.Close()
	copied = filepath.Join(m.Disk, filepath.Base(path))
	to, err := os.OpenFile(copied, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(to, from)
	if err == nil {
		err = to.Sync() // only what is on disk can leave the cache
	}
	if err == nil {
		err = unix.Fadvise(int(to.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	if err := errors.Join(err, to.Close()); err != nil {
		return "", fmt.Errorf("copy %s to machine %s: %w", path, m.Name, err)
	}
	return copied, nil
}

func (m *Machine) close() error {
	var failed []error
	if m.device != nil {
		failed = append(failed, m.device.Close())
	}
	if m.namespace >= 0 {
		failed = append(failed, unix.Close(m.namespace))
	}
	return errors.Join(failed...)
}
