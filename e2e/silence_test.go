//go:build linux

package e2e

import (
	"reflect"
	"syscall"
	"testing"

	"github.com/daisy-llm/daisy/coordinator"
)

// A shard that is stopped breaks no connection, but its silence tells: the others take over. When it goes on, what it still
// sends disturbs nobody, and it is of use again.
func TestStoppedShard(t *testing.T) {
	c := up(t, 3)
	request := func() map[string]any {
		return map[string]any{"prompt": "1, 2, 3,", "temperature": 1, "seed": 5, "max_tokens": 120, "ignore_eos": true, "stream": true}
	}
	want, err := c.ask(request(), func() {})
	if err != nil {
		t.Fatal(err)
	}
	victim := c.status(t).Shards[1]
	n := 0
	got, err := c.ask(request(), func() {
		if n++; n == 20 {
			if err := syscall.Kill(victim.PID, syscall.SIGSTOP); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s, %v; undisturbed %s", describe(got), err, describe(want))
	}
	if err := syscall.Kill(victim.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the shard to be of use again", func() bool {
		for _, s := range c.status(t).Shards {
			if s.Name == victim.Name && (s.State == "ready" || s.State == "spare") {
				return true
			}
		}
		return false
	})
	if got, err := c.ask(request(), func() {}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("afterwards %s, %v; before %s", describe(got), err, describe(want))
	}
	c.end(t)
}

// A coordinator that is killed and started again finds its shards, and who holds what, as they were.
func TestCoordinatorIsRestarted(t *testing.T) {
	address := freePort(t)
	coordinatorProcess := func() *cluster {
		return &cluster{process: start(t, "coordinator", "--model", modelFile, "--listen", address, "--shards", "2", "--context", "1024"), address: address}
	}
	c := coordinatorProcess()
	for _, name := range []string{"one", "two"} {
		start(t, "shard", "--join", address, "--name", name, "--threads", "1", "--memory", "1GiB")
	}
	c.waitReady(t)
	request := func() map[string]any {
		return map[string]any{"prompt": "The sky is", "temperature": 0, "max_tokens": 30}
	}
	want, err := c.ask(request(), func() {})
	if err != nil {
		t.Fatal(err)
	}
	before := c.status(t)
	c.signal(t, syscall.SIGKILL)
	<-c.done
	c = coordinatorProcess()
	c.waitReady(t)
	after := c.status(t)
	if len(after.Shards) != 2 || after.Plan == before.Plan {
		t.Errorf("before %+v, after %+v", before, after)
	}
	for i, s := range after.Shards {
		if b := before.Shards[i]; s.Name != b.Name || s.PID != b.PID || s.First != b.First || s.Last != b.Last || s.State != coordinator.StateReady {
			t.Errorf("before %+v, after %+v", b, s)
		}
	}
	if got, err := c.ask(request(), func() {}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("afterwards %s, %v; before %s", describe(got), err, describe(want))
	}
}
