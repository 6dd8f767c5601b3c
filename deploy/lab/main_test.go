//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/daisy-llm/daisy/deploy/lab/lab"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "as-lab" { // the test binary is the lab's as well
		os.Args = append(os.Args[:1], os.Args[2:]...)
		main()
		return
	}
	os.Exit(m.Run())
}

func command(args ...string) *exec.Cmd {
	return exec.Command("/proc/self/exe", append([]string{"as-lab"}, args...)...)
}

// says runs a command of the lab to its end.
func says(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("lab %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// refuses runs a command of the lab that must fail, and returns why.
func refuses(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command(args...).CombinedOutput()
	if err == nil || !bytes.HasPrefix(out, []byte("lab: ")) {
		t.Fatalf("lab %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this system has no root for us: a lab makes network namespaces and cgroups")
	}
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// running is a lab in another process.
type running struct {
	*exec.Cmd
	out  output
	done chan struct{}
}

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

func start(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{Cmd: command(args...), done: make(chan struct{})}
	r.Stdout, r.Stderr = &r.out, &r.out
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.Wait()
		close(r.done)
	}()
	t.Cleanup(func() {
		r.Process.Kill()
		<-r.done
		if t.Failed() {
			t.Logf("lab %s:\n%s", strings.Join(args, " "), &r.out)
		}
	})
	return r
}

func (r *running) find(t *testing.T, pattern string) []string {
	t.Helper()
	var found []string
	waitFor(t, pattern, func() bool {
		select {
		case <-r.done:
			t.Fatal("the lab ended")
		default:
		}
		found = regexp.MustCompile(pattern).FindStringSubmatch(r.out.String())
		return found != nil
	})
	return found
}

// ends sends Ctrl-C, and looks whether all is gone.
func (r *running) ends(t *testing.T, id string) {
	t.Helper()
	if err := r.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.done:
	case <-time.After(3 * time.Minute):
		t.Fatal("the lab does not end")
	}
	if code := r.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after Ctrl-C", code)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/daisy-lab-" + id, "/sys/fs/cgroup/*/daisy-lab-" + id, filepath.Join(os.TempDir(), "daisy-lab-"+id), filepath.Join(lab.DefaultDir, id)} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("%q is left", left)
		}
	}
	out, _ := exec.Command("pgrep", "-f", "daisy-lab-"+id).Output()
	if len(out) > 0 {
		t.Errorf("processes %s are left", out)
	}
}

// The cluster of the README, on a model so small that nothing is computed: it answers, loses a machine, and answers the same.
func TestClusterInTheLab(t *testing.T) {
	needRoot(t)
	r := start(t, "run", "--shards", "2", "--model", "../../model/testdata/golden/llama/model.gguf", "--private", "--listen", "127.0.0.1:0",
		"--memory", "0,256MiB", "--cpu", "1,0.5", "--rate", "1gbit", "--delay", "1ms", "--coordinator-flag=--context=256")
	found := r.find(t, `ready in lab (\w+): (http://\S+)/v1`)
	id, api := found[1], found[2]
	ask := func() (ids []int, err error) {
		answer, err := http.Post(api+"/v1/completions", "application/json",
			strings.NewReader(`{"prompt": [1, 2, 3], "max_tokens": 20, "temperature": 0, "ignore_eos": true, "return_token_ids": true}`))
		if err != nil {
			return nil, err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			return nil, err
		}
		var got struct {
			Choices []struct {
				IDs []int `json:"token_ids"`
			} `json:"choices"`
		}
		if err := json.Unmarshal(body, &got); err != nil || len(got.Choices) != 1 || len(got.Choices[0].IDs) != 20 {
			return nil, fmt.Errorf("%s: %s", answer.Status, body)
		}
		return got.Choices[0].IDs, nil
	}
	undisturbed, err := ask()
	if err != nil {
		t.Fatal(err)
	}

	status := says(t, "status", "--lab", id)
	for _, want := range []string{"coordinator  10.77.0.1", "shard1       10.77.0.2", "shard2       10.77.0.3", "1ms"} {
		if !strings.Contains(status, want) {
			t.Errorf("the status lacks %q:\n%s", want, status)
		}
	}
	if got := says(t, "exec", "--lab", id, "shard2", "cat", "/proc/net/fib_trie"); !strings.Contains(got, "10.77.0.3\n") {
		t.Errorf("lab exec is in\n%s", got)
	}
	for _, args := range [][]string{
		{"kill", "nobody"}, {"kill"}, {"start", "shard1"}, {"delay", "soon"}, {"delay", "-1s"}, {"loss", "2"}, {"partition", "shard1", "1,2"}, {"exec", "nobody", "true"},
	} {
		refuses(t, append([]string{args[0], "--lab", id}, args[1:]...)...)
	}

	// Whoever is on the lab's network needs to be trusted, and to trust.
	disk := filepath.Join(os.TempDir(), "daisy-lab-"+id, "coordinator")
	from := func(args ...string) []string {
		return append([]string{"exec", "--lab", id, "shard1", filepath.Join(disk, "daisy"), "status", "--coordinator"}, args...)
	}
	if plain, err := command(from("http://10.77.0.1:8080")...).CombinedOutput(); err == nil {
		t.Errorf("the API is plain inside the lab:\n%s", plain)
	}
	if got := says(t, from("https://10.77.0.1:8080", "--state-dir", filepath.Join(disk, "state"))...); !strings.Contains(got, "shard2") {
		t.Errorf("the status from shard1:\n%s", got)
	}

	says(t, "delay", "--lab", id, "3ms", "shard1")
	says(t, "partition", "--lab", id, "shard2")
	if status := says(t, "status", "--lab", id); !strings.Contains(status, "3ms") || !strings.Contains(status, "coordinator,shard1") {
		t.Errorf("delayed and cut:\n%s", status)
	}
	says(t, "heal", "--lab", id)

	says(t, "kill", "--lab", id, "shard1")
	r.find(t, `shard1 \| ended: signal: killed`)
	says(t, "start", "--lab", id, "shard1")
	waitFor(t, "the cluster to answer again", func() bool {
		again, err := ask()
		if err == nil && !reflect.DeepEqual(again, undisturbed) {
			t.Errorf("after kill -9: %v, before: %v", again, undisturbed)
		}
		return err == nil
	})
	r.ends(t, id)
}

// Without encryption only where that was asked for.
func TestOpenCluster(t *testing.T) {
	needRoot(t)
	r := start(t, "run", "--insecure", "--shards", "1", "--model", "../../model/testdata/golden/llama/model.gguf", "--listen", "127.0.0.1:0", "--coordinator-flag=--context=256")
	id := r.find(t, `ready in lab (\w+): `)[1]
	daisy := filepath.Join(os.TempDir(), "daisy-lab-"+id, "coordinator", "daisy")
	if got := says(t, "exec", "--lab", id, "shard1", daisy, "status", "--coordinator", "http://10.77.0.1:8080"); !strings.Contains(got, "ready") {
		t.Errorf("the status from shard1:\n%s", got)
	}
	if !strings.Contains(r.out.String(), "INSECURE") {
		t.Error("nobody says that the cluster is open")
	}
	r.ends(t, id)
}

func TestEmptyLab(t *testing.T) {
	needRoot(t)
	r := start(t, "up", "--machines", "3", "--memory", "0,64MiB")
	id := r.find(t, `Ctrl-C`)[0]
	living, err := lab.Living(lab.DefaultDir)
	if err != nil {
		t.Fatal(err)
	}
	for other, machines := range living {
		if machines[0].Name == "m0" && strings.HasPrefix(machines[0].Namespace, fmt.Sprintf("/proc/%d/", r.Process.Pid)) {
			id = other
		}
	}
	if got := says(t, "exec", "--lab", id, "1", "cat", "/proc/self/cgroup"); !strings.Contains(got, "/daisy-lab-"+id+"/m1\n") {
		t.Errorf("lab exec is in\n%s", got)
	}
	r.ends(t, id)
	refuses(t, "status", "--lab", id)
}

func TestFlagsThatMakeNoSense(t *testing.T) {
	for _, args := range [][]string{
		{"up", "--machines", "0"}, {"up", "--memory", "much"}, {"up", "--memory", "0,1KB"}, {"up", "--cpu", "-1"}, {"up", "--rate", "fast"},
		{"up", "--delay", "-1s"}, {"up", "--period", "1h"}, {"run", "--shards", "0"}, {"run", "--spare", "-1"}, {"run", "--listen", "nowhere"}, {"fly"},
	} {
		refuses(t, args...)
	}
}

func TestQuantities(t *testing.T) {
	f := machineFlags{memory: "0,230MB,1GiB", cpu: "0.4", rate: "1gbit,100Mbit,56kbit,9600"}
	got, err := f.configs([]string{"a", "b", "c", "d"})
	want := []lab.MachineConfig{
		{Name: "a", CPU: 0.4, Rate: 1e9},
		{Name: "b", CPU: 0.4, Rate: 1e8, Memory: 230e6},
		{Name: "c", CPU: 0.4, Rate: 56e3, Memory: 1 << 30},
		{Name: "d", CPU: 0.4, Rate: 9600, Memory: 1 << 30},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, f := range []machineFlags{{}, {memory: "0,x", cpu: "0", rate: "0"}, {memory: "0", cpu: "NaN", rate: "0"}, {memory: "0", cpu: "0", rate: "1e30gbit"}} {
		if _, err := f.configs([]string{"a"}); err == nil {
			t.Errorf("%+v passes", f)
		}
	}
	for text, want := range map[string]float64{"1%": 0.01, "0.5": 0.5, "100%": 1, "0": 0} {
		if got, err := shareOf(text); err != nil || got != want {
			t.Errorf("a share of %s is %v, %v", text, got, err)
		}
	}
}
