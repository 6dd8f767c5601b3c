//go:build linux

package lab

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestMemoryLimitKillsInItsMachineOnly(t *testing.T) {
	l := up(t, MachineConfig{Name: "small", Memory: 64 << 20}, MachineConfig{Name: "large", Memory: 512 << 20})
	small, large := l.Machine("small"), l.Machine("large")
	bystander, _ := start(t, large, exec.Command("sleep", "1000"))
	const meal = "134217728" // 128 MiB

	fits, out := start(t, large, command("eat", meal))
	if err := fits.Wait(); err != nil || out.String() != "full\n" {
		t.Errorf("in the large machine: %v, %s", err, out)
	}
	bursts, out := start(t, small, command("eat", meal))
	var exit *exec.ExitError
	if err := bursts.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("in the small machine: %v, %s", err, out)
	}
	u, err := small.Usage()
	if err != nil || u.Kills != 1 || u.Peak > 64<<20 {
		t.Errorf("the small machine used %+v, %v", u, err)
	}
	u, err = large.Usage()
	if err != nil || u.Kills != 0 || u.Peak < 128<<20 {
		t.Errorf("the large machine used %+v, %v", u, err)
	}
	select {
	case <-bystander.Done:
		t.Error("a process of the large machine is gone, too")
	default:
	}
	// The machine itself is well.
	again, out := start(t, small, command("eat", "1000000"))
	if err := again.Wait(); err != nil {
		t.Errorf("after it: %v, %s", err, out)
	}
}

// A file larger than a machine can be read there: pages make room for each other. And it counts as that machine's.
func TestFileCacheCounts(t *testing.T) {
	l := up(t, MachineConfig{Name: "small", Memory: 48 << 20}, MachineConfig{Name: "large"})
	content := bytes.Repeat([]byte("A daisy turns to the sun, closes at night and opens in the morning.\n"), 96<<20/68)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, m := range l.Machines {
		copied, err := m.Copy(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(copied)
		if err != nil || info.Size() != int64(len(content)) {
			t.Fatalf("the copy differs: %v, %v", info, err)
		}
		p, out := start(t, m, command("read", copied))
		waitFor(t, "the file to be read in "+m.Name, out.has("read "))
		u, err := m.Usage()
		if err != nil || u.Kills != 0 {
			t.Errorf("%s used %+v, %v", m.Name, u, err)
		}
		if m.Name == "small" && (u.Cache < 8<<20 || u.Peak > 48<<20) || m.Name == "large" && u.Cache < 90<<20 {
			t.Errorf("%s has %d bytes cached, and used %d at most", m.Name, u.Cache, u.Peak)
		}
		if err := m.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestCPULimit(t *testing.T) {
	l := up(t, MachineConfig{Name: "slow", CPU: 0.2})
	began := time.Now()
	for range 2 {
		start(t, l.Machine("slow"), command("spin"))
	}
	// Elsewhere they could take a core each, or as little as the rest of the world leaves them.
	waitFor(t, "200 ms of CPU", func() bool {
		u, err := l.Machine("slow").Usage()
		return err == nil && u.CPU > 200*time.Millisecond
	})
	u, err := l.Machine("slow").Usage()
	elapsed := time.Since(began)
	if err != nil || u.Throttled == 0 || u.CPU.Seconds() > 0.2*1.2*elapsed.Seconds()+0.05 {
		t.Errorf("used %v of CPU in %v with 0.2 cores, waited %v for its turn, %v", u.CPU, elapsed, u.Throttled, err)
	}
}
