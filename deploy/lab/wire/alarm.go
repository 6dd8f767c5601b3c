//go:build linux

package wire

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// alarm is a timer of the kernel. Go's own are up to a millisecond late in a program that does nothing else, which would be felt on short links.
type alarm struct {
	file *os.File

	mu sync.Mutex
	fd int // -1 once closed
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	return &alarm{file: os.NewFile(uintptr(fd), "timer"), fd: fd}, nil
}

// set has the alarm ring after a while, instead of when it was to ring before.
func (a *alarm) set(after time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fd < 0 {
		return
	}
	// Zero would turn it off. The call fails for no other argument.
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(after, 1).Nanoseconds())}
	_ = unix.TimerfdSettime(a.fd, 0, &spec, nil)
}

// wait returns once the alarm rings, or was cancelled.
func (a *alarm) wait() error {
	var rings [8]byte
	_, err := a.file.Read(rings[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// cancel has wait return, now and ever after.
func (a *alarm) cancel() { a.file.SetReadDeadline(time.Unix(1, 0)) }

func (a *alarm) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fd = -1
	a.file.Close()
}
