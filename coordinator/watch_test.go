package coordinator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// probed is a link that answers probes as a test says: after a time, and with a count of steps.
type probed struct {
	Link
	takes func(probe int) time.Duration // negative: for ever
	asked int
	steps uint64
	works bool // it computes: each answer says more steps
}

func (p *probed) Probe(ctx context.Context) (uint64, int, error) {
	p.asked++
	d := p.takes(p.asked)
	if d < 0 {
		<-ctx.Done()
		return 0, 0, ctx.Err()
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	if p.works {
		p.steps++
	}
	return p.steps, 0, nil
}

func TestWatch(t *testing.T) {
	at := func(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }
	for name, c := range map[string]struct {
		takes    func(int) time.Duration
		works    bool
		owes     bool
		expected time.Duration
		verdict  string // silent, stuck or none
		from, to time.Duration
	}{
		"a shard that answers no probe":             {at(-1), true, true, 0, "silent", leastSilence, time.Second},
		"one that owes nothing":                     {at(-1), true, false, 0, "none", 0, 0},
		"one whose pass takes long":                 {at(-1), true, true, time.Second, "silent", 4 * time.Second, 5 * time.Second},
		"one that computes and answers":             {at(time.Millisecond), true, true, 0, "none", 0, 0},
		"one on a loaded machine":                   {at(400 * time.Millisecond), true, true, 0, "none", 0, 0},
		"one that answers ever more slowly":         {func(n int) time.Duration { return min(time.Duration(n)*100*time.Millisecond, 9*time.Second) }, true, true, 0, "none", 0, 0},
		"one that stops after slow answers":         {func(n int) time.Duration { return []time.Duration{-1, 300 * time.Millisecond}[min(1, 5/n)] }, true, true, 0, "silent", 1700 * time.Millisecond, 8 * time.Second},
		"shards that answer, but have lost a pass":  {at(time.Millisecond), false, true, 0, "stuck", stuckTime, stuckTime + time.Second},
		"one that answers, for a pass of a minute":  {at(time.Millisecond), false, true, 10 * time.Second, "stuck", stuckTimes * 10 * time.Second, stuckTimes*10*time.Second + time.Second},
		"one that answers, and then stops for ever": {func(n int) time.Duration { return []time.Duration{-1, time.Millisecond}[min(1, 5/n)] }, true, true, 0, "silent", leastSilence, 2 * time.Second},
	} {
		inTime(t, name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			began := time.Now()
			verdict := "none"
			watch(ctx, []*watched{{name: "a", link: &probed{takes: c.takes, works: c.works}}},
				func() (time.Time, time.Duration, bool) { return began, c.expected, c.owes },
				func(*watched, error) { verdict = "silent" }, func(error) { verdict = "stuck" })
			took := time.Since(began)
			if verdict != c.verdict || verdict != "none" && (took < c.from || took > c.to) {
				t.Errorf("the verdict is %s after %v, want %s after %v to %v", verdict, took, c.verdict, c.from, c.to)
			}
			cancel()
			synctest.Wait()
		})
	}
}

// TestWatchOfAStandstill: a coordinator that did not run for a while does not take that for a shard's silence.
func TestWatchOfAStandstill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began, stood := time.Now(), false
		watch(ctx, []*watched{{name: "a", link: &probed{takes: func(int) time.Duration { return 2100 * time.Millisecond }, works: true}}},
			func() (time.Time, time.Duration, bool) {
				if !stood { // the whole machine stands still, the shard's answer arrives right after
					stood = true
				} else if time.Since(began) < 2*time.Second {
					time.Sleep(2 * time.Second)
				}
				return began, 0, true
			},
			func(_ *watched, err error) { t.Errorf("a verdict: %v", err) }, nil)
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Error("the watch ended early")
		}
	})
}
