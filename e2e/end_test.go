//go:build linux

package e2e

import (
	"slices"
	"strings"
	"syscall"
	"testing"
)

// However `daisy up` ends, all of it ends.
func TestUpLeavesNothing(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"SIGINT": syscall.SIGINT, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			c := up(t, 3)
			checkShardPIDs(t, c)
			c.signal(t, signal)
			if code := c.finish(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
	t.Run("SIGKILL", func(t *testing.T) {
		c := up(t, 3)
		checkShardPIDs(t, c)
		c.signal(t, syscall.SIGKILL)
		<-c.done
		c.checkNothingLeft(t)
	})
	t.Run("SIGINT while it loads", func(t *testing.T) {
		p := start(t, "up", "--listen", "127.0.0.1:0", "--shards", "3")
		waitFor(t, "shards", func() bool { return len(marked(p.mark)) > 1 })
		p.signal(t, syscall.SIGINT)
		if code := p.finish(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("SIGINT while it answers", func(t *testing.T) {
		c := up(t, 2)
		ended := make(chan string, 1)
		go func() {
			_, body, err := c.post("/v1/completions", map[string]any{"prompt": "1, 2, 3,", "temperature": 0, "max_tokens": 900, "ignore_eos": true, "stream": true})
			if err != nil {
				ended <- err.Error()
				return
			}
			ended <- string(body)
		}()
		waitFor(t, "a generation", func() bool { return c.status(t).Active == 1 })
		c.end(t)
		if got := <-ended; strings.Contains(got, "[DONE]") {
			t.Errorf("a stream that was cut off ended as a success: %s", got)
		}
	})
}

// checkShardPIDs: the processes are the ones that the status names, and daisy up itself.
func checkShardPIDs(t *testing.T, c *cluster) {
	t.Helper()
	want := []int{c.cmd.Process.Pid}
	for _, s := range c.status(t).Shards {
		want = append(want, s.PID)
	}
	got := marked(c.mark)
	slices.Sort(got)
	slices.Sort(want)
	if len(want) != 4 || !slices.Equal(got, want) {
		t.Errorf("processes %v, by the status %v", got, want)
	}
}

// A shard that dies is reported, and those that are left take over. What it was busy with either ends as an error or goes
// on as if nothing had happened: never in a false success.
func TestShardIsLost(t *testing.T) {
	c := up(t, 3)
	request := func() map[string]any {
		return map[string]any{"prompt": "1, 2, 3,", "temperature": 0, "max_tokens": 700, "ignore_eos": true}
	}
	want, err := c.complete(request())
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		got answer
		err error
	}
	ended := make(chan result, 1)
	go func() {
		got, err := c.complete(request())
		ended <- result{got, err}
	}()
	waitFor(t, "a generation", func() bool { return c.status(t).Active == 1 })
	victim := c.status(t).Shards[1]
	if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if r := <-ended; r.err == nil && !slices.Equal(r.got.IDs, want.IDs) {
		t.Errorf("a success, but not the answer: %+v, want %+v", r.got, want)
	}
	waitFor(t, "the loss to be logged", func() bool {
		return strings.Contains(c.stderr.String(), "a shard ended") && strings.Contains(c.stderr.String(), victim.Name)
	})
	var got answer
	waitFor(t, "the others to take over", func() bool {
		got, err = c.complete(request())
		return err == nil
	})
	if !slices.Equal(got.IDs, want.IDs) {
		t.Errorf("with two shards: %+v, want %+v", got, want)
	}
	waitFor(t, "the dead shard to leave the roster", func() bool { return len(c.status(t).Shards) == 2 })
	c.end(t)
}
