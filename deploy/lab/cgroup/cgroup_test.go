//go:build linux

package cgroup

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestFindsHierarchies(t *testing.T) {
	for name, test := range map[string]struct {
		mounts, membership string
		unified            string // controllers of version 2
		dirs               []string
		own                map[string]string
	}{
		"version 2": {
			mounts:  "25 1 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n26 1 8:1 / / rw - ext4 /dev/sda rw\n",
			unified: "cpuset cpu io memory", membership: "0::/user.slice\n",
			dirs: []string{"/sys/fs/cgroup/x"}, own: map[string]string{},
		},
		"version 1": {
			mounts: "30 25 0:26 / /cg/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n" +
				"31 25 0:27 / /cg/memory rw - cgroup cgroup rw,memory\n32 25 0:28 / /cg/pids rw - cgroup cgroup rw,pids\n",
			membership: "4:memory:/a/b\n3:cpu,cpuacct:/\n",
			dirs:       []string{"/cg/cpu,cpuacct/x", "/cg/memory/x"},
			own:        map[string]string{"/cg/cpu,cpuacct": "/cg/cpu,cpuacct", "/cg/memory": "/cg/memory/a/b"},
		},
		"a mixture, in a container": {
			mounts:  "30 25 0:26 /docker/1 /cg/memory ro - cgroup cgroup rw,memory\n31 25 0:27 / /cg/unified rw - cgroup2 none rw\n",
			unified: "cpu", membership: "4:memory:/docker/1/z\n0::/\n",
			dirs: []string{"/cg/unified/x", "/cg/memory/x"}, own: map[string]string{"/cg/memory": "/cg/memory/z"},
		},
		"a container that is not told where it is": {
			mounts: "30 25 0:26 /docker/1 /cg/memory ro - cgroup cgroup rw,memory\n", membership: "4:memory:/elsewhere\n",
			dirs: []string{"/cg/memory/x"}, own: map[string]string{"/cg/memory": "/cg/memory"},
		},
		"version 2 without controllers": {
			mounts: "31 25 0:27 / /cg rw - cgroup2 none rw\n", dirs: []string{"/cg/x"}, own: map[string]string{},
		},
		"nothing": {mounts: "garbage\n\n - \n", membership: "garbage\n:\n", own: map[string]string{}},
	} {
		tree := parse([]byte(test.mounts), []byte(test.membership))
		tree.unified = strings.Fields(test.unified)
		if got := tree.Dirs("x"); !reflect.DeepEqual(got, test.dirs) {
			t.Errorf("%s: groups are made in %q, want %q", name, got, test.dirs)
		}
		if !reflect.DeepEqual(tree.own, test.own) {
			t.Errorf("%s: this process is in %q, want %q", name, tree.own, test.own)
		}
	}
}

// This machine has but one of the two versions: what would be written into the other's files is seen in a folder with files of those names.
func TestLimitsInBothVersions(t *testing.T) {
	limits := Limits{Memory: 3 << 20, CPU: 0.4}
	for _, test := range []struct {
		unified bool
		want    map[string]string
	}{
		{true, map[string]string{"memory.max": "3145728", "memory.swap.max": "0", "cpu.max": "1000 2500"}},
		{false, map[string]string{
			"memory.limit_in_bytes": "3145728", "memory.memsw.limit_in_bytes": "3145728", "cpu.cfs_period_us": "2500", "cpu.cfs_quota_us": "1000",
		}},
	} {
		dir := t.TempDir()
		for name := range test.want {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := limits.setMemory(dir, test.unified); err != nil {
			t.Error(err)
		}
		if err := limits.setCPU(dir, test.unified); err != nil {
			t.Error(err)
		}
		for name, want := range test.want {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
				t.Errorf("%s says %q, %v; want %q", name, got, err, want)
			}
		}
	}
	if limits.setMemory("", false) == nil || limits.setCPU("", false) == nil {
		t.Error("limits hold although there is no controller for them")
	}
}

func TestPeriods(t *testing.T) {
	for _, test := range []struct {
		limits        Limits
		period, share time.Duration
	}{
		{Limits{CPU: 1}, 2 * time.Millisecond, 2 * time.Millisecond},
		{Limits{CPU: 0.5}, 2 * time.Millisecond, time.Millisecond},
		{Limits{CPU: 0.4}, 2500 * time.Microsecond, time.Millisecond},
		{Limits{CPU: 0.3}, 3334 * time.Microsecond, time.Millisecond},
		{Limits{CPU: 0.4, Period: 10 * time.Millisecond}, 10 * time.Millisecond, 4 * time.Millisecond},
		{Limits{CPU: 0.001}, time.Second, time.Millisecond},
	} {
		if err := test.limits.Validate(); err != nil {
			t.Errorf("%+v: %v", test.limits, err)
		}
		if got := test.limits.period(); got != test.period || test.limits.share() != test.share {
			t.Errorf("%+v: %v in %v, want %v in %v", test.limits, test.limits.share(), got, test.share, test.period)
		}
	}
}

func TestLimitsThatCannotBe(t *testing.T) {
	for _, l := range []Limits{
		{Memory: -1}, {Memory: 1000}, {CPU: -1}, {CPU: math.NaN()}, {CPU: math.Inf(1)}, {CPU: 0.0001},
		{CPU: 0.4, Period: 2 * time.Millisecond}, {Period: time.Microsecond}, {Period: time.Minute},
	} {
		if l.Validate() == nil {
			t.Errorf("%+v passes", l)
		}
	}
}

func TestGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this system has no root for us: cgroups are made by root")
	}
	tree, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	parent := fmt.Sprintf("daisy-cgroup-test-%d", os.Getpid())
	t.Cleanup(func() {
		if err := Remove(tree.Dirs(parent)); err != nil {
			t.Error(err)
		}
	})
	g, err := tree.Make(parent, "a", Limits{Memory: 64 << 20, CPU: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	// It says where it is, and leaves a child that is not this process's.
	command := exec.Command("sh", "-c", "cat /proc/self/cgroup; echo; setsid sleep 1000 & exec sleep 1000")
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.SysProcAttr = &syscall.SysProcAttr{}
	runtime.LockOSThread()
	err = g.Start(command.SysProcAttr, command.Start)
	after, _ := os.ReadFile("/proc/thread-self/cgroup")
	runtime.UnlockOSThread()
	if err != nil {
		t.Fatal(err)
	}
	if string(after) != string(before) {
		t.Errorf("the thread stayed in\n%s\nit came from\n%s", after, before)
	}
	var in int
	for scanner := bufio.NewScanner(out); scanner.Scan() && scanner.Text() != ""; {
		if strings.HasSuffix(scanner.Text(), ":/"+parent+"/a") {
			in++
		}
	}
	if want := len(tree.Dirs(parent)); in != want {
		t.Errorf("the process was in the group of %d hierarchies at first, want %d", in, want)
	}
	waitFor(t, "two processes", func() bool {
		pids, err := g.Processes()
		return err == nil && len(pids) == 2
	})
	usage, err := g.Usage()
	if err != nil || tree.where("memory") != "" && (usage.Memory <= 0 || usage.Peak < usage.Memory) || tree.where("cpu") != "" && usage.CPU <= 0 {
		t.Errorf("usage %+v, %v", usage, err)
	}
	if _, err := tree.Make(parent, "a", Limits{}); err == nil {
		t.Error("two groups of one name")
	}
	dirs := tree.Dirs(parent)
	if err := Remove(dirs); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); command.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the process ended with %v", err)
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is still there", dir)
		}
	}
	if err := Remove(dirs); err != nil {
		t.Errorf("removed twice: %v", err)
	}
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
