//go:build linux

package e2e

import (
	"net/http"
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

// A shard that dies is reported; the coordinator stays up and says what it waits for, and nothing ends as a success.
func TestUpGoesOnWithoutAShard(t *testing.T) {
	c := up(t, 2)
	victim := c.status(t).Shards[1]
	if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the loss to be logged", func() bool {
		return strings.Contains(c.stderr.String(), "a shard ended") && strings.Contains(c.stderr.String(), victim.Name)
	})
	if res, err := http.Get("http://" + c.address + "/healthz"); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("/healthz: %v", err)
	} else {
		res.Body.Close()
	}
	c.end(t)
}
