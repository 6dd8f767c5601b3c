package coordinator

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// manyChunks is a cluster of two for prompts of several passes.
func manyChunks(cfg *Config) {
	cfg.Shards = 2
	cfg.Shape.Context, cfg.Load.Context = 1024, 1024
	cfg.Shape.Parallel, cfg.Load.Parallel = 4, 4
	cfg.Model.Hidden = 1
	cfg.Shape.Layers = slices.Repeat([]plan.LayerSize{{Weights: 100000, Cache: 1}}, 12)
	cfg.RecoveryTimeout = 30 * time.Second
}

// A shard dies of the same pass in each of its lives, and is started again each time.
func TestPassThatKillsItsShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, manyChunks)
		c.world.delay.Store(int64(20 * time.Millisecond))
		c.join("a", "b")
		c.settled()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
		defer cancel()
		deaths := 0
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			victim := c.Status().Shards[1].Name
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				if steps, _, _ := c.proc(victim).progress(); steps >= 4 {
					deaths++
					c.lose(victim)
					time.Sleep(3 * time.Second)
					c.join(victim)
				}
			}
		}()
		r := Request{MaxTokens: 2, IgnoreEOS: true, Prompt: slices.Repeat([]token.ID{5}, 900)}
		began := time.Now()
		_, _, _, err := c.collect(ctx, r)
		close(stop)
		<-done
		if !errors.Is(err, ErrLost) {
			t.Errorf("after %v and %d deaths: %v", time.Since(began), deaths, err)
		}
		c.stop()
	})
}

// Younger sequences wait for older ones longer than the timeout; then a shard dies, and comes back after a second.
func TestWaitForOlderTakesNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(cfg *Config) { manyChunks(cfg); cfg.RecoveryTimeout = 3 * time.Second })
		c.join("a", "b")
		c.settled()
		errs := make([]error, 2)
		done := make(chan int, 2)
		for i := range errs {
			go func() {
				r := Request{MaxTokens: 100, IgnoreEOS: true, Prompt: slices.Repeat([]token.ID{5}, 800)}
				_, _, _, errs[i] = c.collect(context.Background(), r)
				done <- i
			}()
			synctest.Wait()
		}
		time.Sleep(60 * time.Millisecond)
		last := c.Status().Shards[1].Name
		comeBack := func() {
			c.lose(last)
			time.Sleep(time.Second)
			c.world.delay.Store(int64(800 * time.Millisecond)) // 7 chunks, two stages
			c.join(last)
		}
		comeBack()
		for c.recovering.count() != 1 {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(50 * time.Millisecond) // the younger one has begun
		c.world.delay.Store(int64(time.Millisecond))
		comeBack()
		c.world.delay.Store(int64(time.Millisecond))
		<-done
		<-done
		for i, err := range errs {
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		c.stop()
	})
}

// Another coordinator's plan is on a shard, which does not unload it as long as that one is connected.
func TestPlansOfOthersAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, manyChunks)
		c.world.foreign = "other"
		c.spawn("a")
		c.proc("a").blocks[pass.PlanID{Number: 7, Leader: "other"}] = pass.Load{}
		c.members = append(c.members, plan.Member{Name: "a", Address: "a:1", PID: c.procs["a"].pid, Memory: 1 << 20})
		c.join("b")
		c.settled()
		n := c.world.refused.Load()
		time.Sleep(10 * time.Minute)
		if n := c.world.refused.Load() - n; n > 5 {
			t.Errorf("asked %d times in ten minutes", n)
		}
		c.stop()
	})
}

// A shard cannot load its block, though it lives: its disk may be full. The others hold the model without it, an answer that
// waits comes, and later it is tried again.
func TestShardThatCannotLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(cfg *Config) { manyChunks(cfg); cfg.Shards = 3 })
		var full atomic.Bool
		full.Store(true)
		c.world.loading = func(_ context.Context, shard string, _ pass.Load) error {
			if full.Load() && shard == "b" {
				return errors.New("the disk is full")
			}
			return nil
		}
		c.join("a", "b", "c")
		if _, _, _, err := c.collect(context.Background(), Request{MaxTokens: 2, IgnoreEOS: true, Prompt: []token.ID{5}}); err != nil && !errors.Is(err, ErrNotReady) {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
		if _, _, _, err := c.collect(context.Background(), Request{MaxTokens: 2, IgnoreEOS: true, Prompt: []token.ID{5}}); err != nil {
			t.Error(err)
		}
		full.Store(false)
		time.Sleep(time.Minute)
		for _, s := range c.Status().Shards {
			if s.Name == "b" && s.Stage < 0 {
				t.Errorf("with room again it is %s %q, of no use", s.State, s.Detail)
			}
		}
		c.stop()
	})
}
