//go:build linux

package e2e

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A coordinator and shards that are started by hand, in any order, find each other and give the answer of `daisy up`.
func TestByHand(t *testing.T) {
	request := func() map[string]any {
		return map[string]any{"prompt": "The sky is", "temperature": 0, "max_tokens": 30}
	}
	whole := up(t, 1)
	want, err := whole.complete(request())
	if err != nil {
		t.Fatal(err)
	}
	whole.end(t)
	for name, order := range map[string][]string{
		"coordinator first": {"coordinator", "one", "two"},
		"coordinator last":  {"one", "two", "coordinator"},
		"coordinator amid":  {"two", "coordinator", "one"},
	} {
		t.Run(name, func(t *testing.T) {
			address := freePort(t)
			processes := map[string]*process{}
			for _, who := range order {
				if who == "coordinator" {
					processes[who] = start(t, "coordinator", "--model", modelFile, "--listen", address, "--shards", "2", "--context", "1024")
				} else {
					processes[who] = start(t, "shard", "--join", address, "--name", who, "--threads", "1", "--memory", "2GiB")
				}
			}
			c := &cluster{process: processes["coordinator"], address: address}
			c.waitReady(t)
			c.checkStatus(t, processes)
			got, err := c.complete(request())
			if err != nil || !slices.Equal(got.IDs, want.IDs) || got.Text != want.Text {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
			for _, who := range []string{"coordinator", "one", "two"} {
				processes[who].signal(t, syscall.SIGTERM)
				if code := processes[who].finish(t); code != 0 {
					t.Errorf("%s: exit code %d", who, code)
				}
			}
		})
	}
}

// waitReady waits until a plan is loaded.
func (c *cluster) waitReady(t *testing.T) {
	t.Helper()
	waitFor(t, "/readyz", func() bool {
		select {
		case <-c.done:
			t.Fatalf("%s ended: %v", c, c.err)
		default:
		}
		res, err := http.Get("http://" + c.address + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// checkStatus: what `daisy status` says of two shards started by hand.
func (c *cluster) checkStatus(t *testing.T, processes map[string]*process) {
	t.Helper()
	stdout, _, code := daisy(t, "status", "--coordinator", c.address, "--json")
	var s struct {
		Layers int
		State  string
		Shards []struct {
			Name, Address, State string
			PID, First, Last     *int
		}
	}
	if err := json.Unmarshal([]byte(stdout), &s); code != 0 || err != nil || s.State != "ready" || s.Layers != 30 || len(s.Shards) != 2 {
		t.Fatalf("exit code %d, %v: %s", code, err, stdout)
	}
	covered := 0
	for _, shard := range s.Shards {
		process := processes[shard.Name]
		if process == nil || shard.PID == nil || *shard.PID != process.cmd.Process.Pid || !strings.HasPrefix(shard.Address, "127.0.0.1:") ||
			shard.State != "ready" || shard.First == nil || shard.Last == nil {
			t.Fatalf("shard %+v in %s", shard, stdout)
		}
		covered += *shard.Last - *shard.First
	}
	if covered != s.Layers {
		t.Errorf("%d layers are held, the model has %d", covered, s.Layers)
	}
	table, _, code := daisy(t, "status", "--coordinator", c.address)
	for _, want := range []string{`(?m)^state +ready`, `(?m)^0 +(one|two) +0-\d+ +ready`, `(?m)^1 +(one|two) +[\d-]+ +ready`} {
		if code != 0 || !regexp.MustCompile(want).MatchString(table) {
			t.Errorf("exit code %d, no %s in\n%s", code, want, table)
		}
	}
}

// Shards that cannot serve the coordinator's model say so, and are not planned on.
func TestShardWithAnotherModel(t *testing.T) {
	address := freePort(t)
	c := &cluster{process: start(t, "coordinator", "--model", golden, "--listen", address), address: address}
	wrong := start(t, "shard", "--join", address, "--name", "wrong", "--model", "../model/testdata/golden/qwen2/model.gguf", "--memory", "1GiB")
	if code := wrong.finish(t); code == 0 || !strings.Contains(wrong.stderr.String(), "daisy: ") || !strings.Contains(wrong.stderr.String(), "SHA-256") {
		t.Errorf("exit code %d, stderr %s", code, wrong.stderr)
	}
	start(t, "shard", "--join", address, "--name", "right", "--model", golden, "--memory", "1GiB")
	c.waitReady(t)
	if a, err := c.complete(map[string]any{"prompt": "Hello", "temperature": 0, "max_tokens": 8, "ignore_eos": true}); err != nil || len(a.IDs) != 8 {
		t.Errorf("%+v, %v", a, err)
	}
}
