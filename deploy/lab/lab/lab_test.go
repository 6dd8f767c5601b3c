//go:build linux

package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary is also the programs that run in the machines.
const asProgram = "as-program"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == asProgram {
		if err := program(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func program(name string, args []string) error {
	switch name {
	case "eat": // so many bytes
		size, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		eaten := make([]byte, size)
		for i := 0; i < len(eaten); i += 4096 {
			eaten[i] = 1
		}
		fmt.Println("full")
	case "read": // a file, through a mapping
		file, err := os.Open(args[0])
		if err != nil {
			return err
		}
		info, err := file.Stat()
		if err != nil {
			return err
		}
		mapped, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
		if err != nil {
			return err
		}
		sum := 0
		for i := 0; i < len(mapped); i += 4096 {
			sum += int(mapped[i])
		}
		fmt.Println("read", sum)
		wait()
	case "spin":
		for began := time.Now(); time.Since(began) < time.Hour; {
		}
	case "lab": // holds a lab until it is killed
		l, err := Up(Config{Dir: args[0], Disk: args[0], Machines: []MachineConfig{{Name: "a"}, {Name: "b", Memory: 64 << 20}}})
		if err != nil {
			return err
		}
		for _, m := range l.Machines {
			if _, err := m.Start(exec.Command("sh", "-c", "setsid sleep 1000 & exec sleep 1000")); err != nil {
				return err
			}
		}
		fmt.Println("up", l.ID)
		wait()
	case "enter": // the first machine of a lab
		labs, err := Living(DefaultDir)
		if err != nil || len(labs[args[0]]) == 0 {
			return fmt.Errorf("lab %s does not live, %v", args[0], err)
		}
		return Enter(labs[args[0]][0], "/bin/sh", []string{"sh", "-c", args[1]}, nil)
	}
	return nil
}

func wait() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
}

func command(args ...string) *exec.Cmd {
	return exec.Command("/proc/self/exe", append([]string{asProgram}, args...)...)
}

// up makes a lab that must be gone, with all that was in it, after the test. It is where labs are by default, so that the next one finds it
// even if the test is killed.
func up(t *testing.T, machines ...MachineConfig) *Lab {
	t.Helper()
	needRoot(t)
	l, err := Up(Config{Machines: machines, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left := leftOf(l)
		if err := l.Down(); err != nil {
			t.Error(err)
		}
		if err := l.Down(); err != nil {
			t.Errorf("a second time: %v", err)
		}
		left.mustBeGone(t)
	})
	return l
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this system has no root for us: a lab makes network namespaces and cgroups")
	}
}

// leavings are what must be gone after a lab.
type leavings struct {
	id        string
	processes []int
	paths     []string
}

func leftOf(l *Lab) leavings {
	left := leavings{id: l.ID, paths: append([]string{l.Dir, l.record.Disk}, l.record.Cgroups...)}
	for _, m := range l.Machines {
		pids, _ := m.Processes()
		left.processes = append(left.processes, pids...)
	}
	return left
}

func (l leavings) mustBeGone(t *testing.T) {
	t.Helper()
	for _, path := range l.paths {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	waitFor(t, "the lab's processes to be gone", func() bool { return !slices.ContainsFunc(l.processes, alive) })
	// Namespaces and devices last as long as somebody is in them or holds them.
	waitFor(t, "the lab's threads and files to be gone", func() bool { return len(foreignNetworks()) == 0 && len(devices()) == 0 })
	for _, dir := range []string{"/run/netns", "/sys/class/net"} {
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			if strings.Contains(entry.Name(), l.id) {
				t.Errorf("%s/%s is still there", dir, entry.Name())
			}
		}
	}
}

// alive reports whether a process runs; one that only waits to be collected by whoever inherited it does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, ok := bytes.Cut(stat, []byte(") "))
	return err == nil && ok && state[0] != 'Z' && state[0] != 'X'
}

// foreignNetworks are those that threads of this process are in, other than its own.
func foreignNetworks() (foreign []string) {
	own, _ := os.Readlink("/proc/self/ns/net")
	threads, _ := filepath.Glob("/proc/self/task/*/ns/net")
	for _, thread := range threads {
		if at, err := os.Readlink(thread); err == nil && at != own {
			foreign = append(foreign, at)
		}
	}
	return foreign
}

// devices are the files of this process that hold devices or namespaces of labs.
func devices() (held []string) {
	files, _ := filepath.Glob("/proc/self/fd/*")
	for _, file := range files {
		if at, err := os.Readlink(file); err == nil && (at == "/dev/net/tun" || strings.HasPrefix(at, "net:")) {
			held = append(held, at)
		}
	}
	return held
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// start starts a program whose output can be read while it runs.
func start(t *testing.T, m *Machine, c *exec.Cmd) (*Process, *output) {
	t.Helper()
	out := &output{}
	c.Stdout, c.Stderr = out, out
	p, err := m.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	return p, out
}

// output is what a program has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) has(text string) func() bool {
	return func() bool { return strings.Contains(o.String(), text) }
}

func TestMachineIsApart(t *testing.T) {
	l := up(t, MachineConfig{Name: "a"}, MachineConfig{Name: "b"})
	var seen []string
	for _, m := range l.Machines {
		p, out := start(t, m, exec.Command("cat", "/proc/net/dev", "/proc/net/fib_trie"))
		if err := p.Wait(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if !strings.Contains(out.String(), "-- "+m.Addr.String()+"\n") || !strings.Contains(out.String(), deviceName+":") {
			t.Errorf("machine %s sees %s", m.Name, out)
		}
		seen = append(seen, out.String())
	}
	if strings.Contains(seen[0], "-- "+l.Machines[1].Addr.String()+"\n") {
		t.Errorf("machine a has b's address: %s", seen[0])
	}
}

func TestSignalsReachTheWholeMachine(t *testing.T) {
	l := up(t, MachineConfig{Name: "a"}, MachineConfig{Name: "b"})
	a, b := l.Machine("a"), l.Machine("b")
	family := []string{"sh", "-c", "setsid sleep 1000 & exec sleep 1000"}
	p, _ := start(t, a, exec.Command(family[0], family[1:]...))
	other, _ := start(t, b, exec.Command(family[0], family[1:]...))
	var pids []int
	waitFor(t, "two processes", func() bool {
		var err error
		pids, err = a.Processes()
		return err == nil && len(pids) == 2
	})
	inState := func(state string) func() bool {
		return func() bool {
			for _, pid := range pids {
				stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
				if !bytes.Contains(stat, []byte(") "+state+" ")) {
					return false
				}
			}
			return true
		}
	}
	for _, step := range []struct {
		signal syscall.Signal
		state  string
	}{{syscall.SIGSTOP, "T"}, {syscall.SIGCONT, "S"}} {
		if err := a.Signal(step.signal); err != nil {
			t.Fatal(err)
		}
		waitFor(t, fmt.Sprint("the effect of ", step.signal), inState(step.state))
	}
	if err := a.Signal(syscall.SIGSTOP); err != nil { // what is stopped can be killed
		t.Fatal(err)
	}
	if err := a.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil {
		t.Error("it was killed, and says that all is well")
	}
	waitFor(t, "the machine to be empty", func() bool {
		left, err := a.Processes()
		return err == nil && len(left) == 0
	})
	select {
	case <-other.Done:
		t.Error("a process of another machine was killed as well")
	default:
	}
	// A machine that died can start again.
	again, out := start(t, a, exec.Command("echo", "again"))
	if err := again.Wait(); err != nil || out.String() != "again\n" {
		t.Errorf("after kill -9: %v, %q", err, out)
	}
}

func TestWhatCannotStart(t *testing.T) {
	l := up(t, MachineConfig{Name: "a"})
	if _, err := l.Machine("a").Start(exec.Command("/there/is/no/such/program")); err == nil || !strings.Contains(err.Error(), "machine a") {
		t.Errorf("got %v", err)
	}
	if l.Machine("z") != nil {
		t.Error("found a machine that is not there")
	}
}

func TestLabsThatCannotBe(t *testing.T) {
	for name, config := range map[string]Config{
		"no machine":      {},
		"too many":        {Machines: make([]MachineConfig, maxMachines+1)},
		"no name":         {Machines: []MachineConfig{{}}},
		"a path":          {Machines: []MachineConfig{{Name: "../a"}}},
		"twice":           {Machines: []MachineConfig{{Name: "a"}, {Name: "a"}}},
		"too slow a link": {Machines: []MachineConfig{{Name: "a", Rate: 1}}},
		"no memory":       {Machines: []MachineConfig{{Name: "a", Memory: 1}}},
		"negative CPU":    {Machines: []MachineConfig{{Name: "a", CPU: -1}}},
	} {
		if err := config.Validate(); err == nil {
			t.Errorf("%s: passes", name)
		} else if _, err := Up(config); err == nil {
			t.Errorf("%s: is made", name)
		}
	}
}

// However a lab dies, what it made is removed, by the next one at the latest.
func TestKilledLabLeavesNothing(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	dead := command("lab", dir)
	out := &output{}
	dead.Stdout, dead.Stderr = out, out
	if err := dead.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the lab to be up", out.has("up "))
	id := strings.TrimSpace(strings.TrimPrefix(out.String(), "up "))
	var left leavings
	if err := each(dir, func(r *record) error {
		left = leavings{id: r.ID, paths: append([]string{r.dir, r.Disk}, r.Cgroups...)}
		for _, dir := range r.Cgroups {
			for _, m := range r.Machines {
				pids, err := processes(filepath.Join(dir, m.Name))
				if err != nil {
					return err
				}
				left.processes = append(left.processes, pids...)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if left.id != id || len(left.processes) < 4 || len(left.paths) < 3 {
		t.Fatalf("lab %q wrote down %+v", id, left)
	}

	// One that lives is left alone.
	if err := Clean(dir); err != nil {
		t.Fatal(err)
	}
	for _, pid := range left.processes {
		if !alive(pid) {
			t.Errorf("process %d of a living lab was killed", pid)
		}
	}
	if labs, err := Living(dir); err != nil || len(labs[id]) != 2 {
		t.Errorf("%v lives, %v", labs, err)
	}

	if err := dead.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	dead.Wait()
	if labs, err := Living(dir); err != nil || len(labs) != 0 {
		t.Errorf("%v lives after kill -9, %v", labs, err)
	}
	next, err := Up(Config{Dir: dir, Disk: dir, Machines: []MachineConfig{{Name: "a"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range left.paths {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	if err := next.Down(); err != nil {
		t.Error(err)
	}
	left.mustBeGone(t)
}

// Nothing of this happens on the main thread, which never ends, and whose network is that of the whole process in the eyes of others.
func TestMainThreadStaysWhereItIs(t *testing.T) {
	at := func() string {
		network, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return network
	}
	before := at()
	l := up(t, MachineConfig{Name: "a"})
	for range 100 { // often enough to be offered the main thread
		if err := l.Machine("a").Within(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if at() != before {
		t.Error("the main thread has moved into a machine")
	}
}

func processes(dir string) (pids []int, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for _, line := range strings.Fields(string(raw)) {
		pid, _ := strconv.Atoi(line)
		pids = append(pids, pid)
	}
	return pids, err
}

// A record that was tampered with removes nothing of anyone else's.
func TestOnlyWhatBearsItsNameIsRemoved(t *testing.T) {
	for _, text := range []string{
		`{"id": "00000001", "disk": "/"}`, `{"id": "00000001", "disk": "/tmp/daisy-lab-00000002"}`, `{"id": "00000001", "disk": "daisy-lab-00000001"}`, `{"disk": "/daisy-lab-"}`,
		`{"id": "00000001", "disk": "/daisy-lab-00000001", "cgroups": ["/sys/fs/cgroup"]}`, `{"id": "/../x", "disk": "/daisy-lab-/../x"}`, `{`,
	} {
		dir := t.TempDir()
		at := filepath.Join(dir, "00000001", "lab.json")
		if err := os.Mkdir(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Clean(dir); err == nil {
			t.Errorf("%s: taken at its word", text)
		}
		if _, err := os.Stat(at); err != nil {
			t.Errorf("%s: removed", text)
		}
	}
}

func TestAnotherProcessEnters(t *testing.T) {
	l := up(t, MachineConfig{Name: "a", Memory: 128 << 20}, MachineConfig{Name: "b"})
	a := l.Machine("a")
	raw, err := command("enter", l.ID, "cat /proc/net/fib_trie /proc/self/cgroup").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	if !bytes.Contains(raw, []byte(a.Addr.String())) || !bytes.Contains(raw, []byte(prefix+l.ID+"/a")) {
		t.Errorf("it got to %s", raw)
	}
}
