//go:build linux

package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Limits are what a group may use. Zero means as much as there is.
type Limits struct {
	Memory int64         // bytes, the file cache included: the kernel gives pages back before it kills
	CPU    float64       // cores
	Period time.Duration // in which the CPU's share is used up; short periods stutter less. Zero means 2 ms, or the shortest that the kernel takes
}

const (
	defaultPeriod = 2 * time.Millisecond
	shortest      = time.Millisecond // of both period and share: the kernel refuses less
	longest       = time.Second
	leastMemory   = 1 << 20 // less cannot even start a process
)

// Validate says what no group can have.
func (l Limits) Validate() error {
	if l.Memory != 0 && l.Memory < leastMemory {
		return fmt.Errorf("a memory limit of %d bytes: give at least 1 MiB, or 0 for none", l.Memory)
	}
	if l.CPU != 0 && !(l.CPU >= 0.001 && l.CPU <= 1024) {
		return fmt.Errorf("a CPU limit of %v cores: give between 0.001 and 1024, or 0 for none", l.CPU)
	}
	if l.Period != 0 && (l.Period < shortest || l.Period > longest) {
		return fmt.Errorf("a CPU period of %v: give between %v and %v, or 0 for the default", l.Period, shortest, longest)
	}
	if l.CPU != 0 && l.Period != 0 && l.share() < shortest {
		return fmt.Errorf("%v cores in periods of %v are %v each, and the kernel counts none below %v: give a period of at least %v",
			l.CPU, l.Period, l.share(), shortest, Limits{CPU: l.CPU}.period())
	}
	return nil
}

// period is the default as far as the kernel allows it: 0.4 cores need 2.5 ms.
func (l Limits) period() time.Duration {
	if l.Period != 0 {
		return l.Period
	}
	least := time.Duration(float64(shortest)/l.CPU + float64(time.Microsecond) - 1).Truncate(time.Microsecond)
	return max(defaultPeriod, least)
}

func (l Limits) share() time.Duration {
	return time.Duration(l.CPU * float64(l.period())).Round(time.Microsecond)
}

// setMemory writes the limit into a group's directory, which version 2 owns or not.
func (l Limits) setMemory(dir string, unified bool) error {
	bytes := strconv.FormatInt(l.Memory, 10)
	switch {
	case l.Memory == 0:
		return nil
	case dir == "":
		return fmt.Errorf("limit memory to %d bytes: this machine has no memory cgroups", l.Memory)
	case unified:
		if err := write(filepath.Join(dir, "memory.max"), bytes); err != nil {
			return err
		}
		return writeIfThere(filepath.Join(dir, "memory.swap.max"), "0") // or the group would spill into swap
	}
	if err := write(filepath.Join(dir, "memory.limit_in_bytes"), bytes); err != nil {
		return err
	}
	return writeIfThere(filepath.Join(dir, "memory.memsw.limit_in_bytes"), bytes)
}

func (l Limits) setCPU(dir string, unified bool) error {
	if l.CPU == 0 {
		return nil
	}
	period, share := l.period().Microseconds(), l.share().Microseconds()
	switch {
	case dir == "":
		return fmt.Errorf("limit CPU to %v cores: this machine has no CPU cgroups", l.CPU)
	case unified:
		return write(filepath.Join(dir, "cpu.max"), fmt.Sprintf("%d %d", share, period))
	}
	if err := write(filepath.Join(dir, "cpu.cfs_period_us"), strconv.FormatInt(period, 10)); err != nil {
		return err
	}
	return write(filepath.Join(dir, "cpu.cfs_quota_us"), strconv.FormatInt(share, 10))
}

// write fills one of the kernel's files, which it never creates.
func write(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set %s: %w", filepath.Base(path), err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		return fmt.Errorf("set %s to %q: %w", filepath.Base(path), text, err)
	}
	return nil
}

func writeIfThere(path, text string) error {
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	return write(path, text)
}

// number reads a file with one number, or the number after a key.
func number(path, key string) (int64, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range lines(raw) {
		fields := strings.Fields(line)
		if key == "" && len(fields) == 1 {
			return strconv.ParseInt(fields[0], 10, 64)
		}
		if len(fields) == 2 && fields[0] == key {
			return strconv.ParseInt(fields[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s does not say %q", path, key)
}
