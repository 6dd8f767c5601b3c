package coordinator

import (
	"strings"
	"testing"
	"time"
)

// TestFirstPlan: a number of shards that was asked for is waited for, and no longer; without one the first shard waits a
// moment for others.
func TestFirstPlan(t *testing.T) {
	inTime(t, "the one that was asked for", func(t *testing.T) {
		c := start(t, func(cfg *Config) { cfg.Shards = 1 })
		defer c.stop()
		began := time.Now()
		c.join("a")
		for !c.Ready() {
			<-c.Changed()
		}
		if waited := time.Since(began); waited >= settleTime {
			t.Errorf("ready after %v: nobody else was asked for", waited)
		}
	})
	inTime(t, "those that come soon", func(t *testing.T) {
		c := start(t, func(cfg *Config) { cfg.Shards = 0 })
		defer c.stop()
		if s := c.settled(); s.State != StateWaiting || !strings.Contains(s.Detail, "0 of 1") {
			t.Errorf("without shards: %+v", s)
		}
		c.join("a")
		time.Sleep(settleTime / 2)
		c.join("b")
		if s := c.settled(); s.State != StateReady || len(s.Shards) != 2 || s.Shards[1].Stage != 1 || !strings.HasPrefix(s.Plan, "1@") {
			t.Errorf("with two that came one after the other: %+v", s)
		}
	})
}
