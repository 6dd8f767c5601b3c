package coordinator

import (
	"context"
	"fmt"
	"time"
)

// A shard that is stopped, or cut off, breaks no stream: it falls silent. What it owes tells. While a pipeline owes results,
// its shards are probed, and a shard that answers no probe is given up. A shard answers from outside its compute loop, so a
// long computation is no silence; and on a loaded machine an answer may take long, which is no silence either:
//
//   - Silence counts only once a result is late, and only for as long as the coordinator itself ran to notice it: a machine
//     that stands still for a second makes nobody silent.
//   - It must last longer than leastSilence, four times what the late pass was expected to take, and silencePerAnswer times
//     the slowest answer that the shard gave lately: whoever competes for its processor has made its answers slow before.
//
// A wrong verdict costs a replay, never an answer.
const (
	watchTick        = 50 * time.Millisecond
	probeEvery       = 500 * time.Millisecond // while results are owed in time, to know how fast answers are
	leastSilence     = 500 * time.Millisecond
	mostSilence      = 20 * time.Second // for slow answers alone
	silencePerAnswer = 6
	late             = 200 * time.Millisecond // or twice what was expected, if that is more
	slowestKept      = 0.98                   // of the slowest answer, at each one after it

	// Shards that all answer, and compute nothing for so long or for so many times what was expected, have lost passes.
	stuckTime  = 30 * time.Second
	stuckTimes = 20
)

// watched is a shard of a pipeline, as watch sees it.
type watched struct {
	name    string
	link    Link
	asked   time.Time // when the probe that is on its way was sent; zero: there is none
	next    time.Time // when the next one may be
	silence time.Duration
	slowest time.Duration
	steps   uint64
}

// answer is what came of a probe.
type answer struct {
	shard *watched
	steps uint64
	err   error
}

// limit is how long the shard may be silent.
func (s *watched) limit(expected time.Duration) time.Duration {
	return max(leastSilence, 4*expected, min(silencePerAnswer*s.slowest, mostSilence))
}

// watch probes the shards of a pipeline until ctx ends. owed is Pipeline.Owed. It calls silent with a shard that is lost, and
// stuck, if it is set, when passes are.
func watch(ctx context.Context, shards []*watched, owed func() (since time.Time, expected time.Duration, ok bool), silent func(s *watched, err error), stuck func(error)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	answers := make(chan answer, len(shards))
	before, progress := time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-answers:
			took := time.Since(a.shard.asked)
			a.shard.asked, a.shard.silence = time.Time{}, 0
			if a.err != nil {
				a.shard.next = time.Now().Add(probeEvery) // its link's end says more
				continue
			}
			a.shard.slowest = max(took, time.Duration(slowestKept*float64(a.shard.slowest)))
			if a.steps != a.shard.steps {
				a.shard.steps, progress = a.steps, time.Now()
			}
			continue
		case <-tick.C:
		}
		now := time.Now()
		ran := min(now.Sub(before), 2*watchTick) // what is above that, this process did not run
		before = now
		since, expected, ok := owed()
		if !ok {
			progress = now
		}
		if since.After(progress) {
			progress = since
		}
		isLate := ok && now.Sub(since) > max(late, 2*expected)
		for _, s := range shards {
			switch {
			case !s.asked.IsZero():
				s.silence += ran
				if isLate && s.silence > s.limit(expected) {
					silent(s, fmt.Errorf("it is silent for %v, though passes are on their way", now.Sub(s.asked).Round(10*time.Millisecond)))
					return
				}
			case ok && (isLate || now.After(s.next)):
				s.asked, s.next = now, now.Add(probeEvery)
				go func() {
					steps, _, err := s.link.Probe(ctx)
					answers <- answer{s, steps, err} // has room for one a shard
				}()
			}
		}
		if stuck != nil && ok && now.Sub(progress) > max(stuckTime, stuckTimes*expected) {
			stuck(fmt.Errorf("its shards answer, but none has computed anything for %v", now.Sub(progress).Round(time.Second)))
			return
		}
	}
}

// loadingAnswer stands for what a pass is expected to take while a shard loads: its answers are slower then.
const loadingAnswer = 500 * time.Millisecond

// watch has shards watched until ctx ends.
func (o *operator) watch(ctx context.Context, names []string, owed func() (time.Time, time.Duration, bool), stuck func(error)) {
	var shards []*watched
	for _, name := range names {
		if m := o.links[name]; m != nil {
			shards = append(shards, &watched{name: name, link: m.link})
		}
	}
	o.spawn(func() error {
		watch(ctx, shards, owed, func(s *watched, err error) {
			o.post(ctx, func(ctx context.Context, o *operator) { o.condemn(ctx, s.name, s.link, err) })
		}, stuck)
		return nil
	})
}

// condemn gives up a shard that is silent: its link is closed, so that what it may still send reaches nobody, and dialled
// again until it answers as one that has just come.
func (o *operator) condemn(ctx context.Context, name string, link Link, err error) {
	m := o.links[name]
	if m == nil || m.link != link {
		return // it has another link by now
	}
	o.c.cfg.Log.Warn("a shard is given up", "shard", name, "reason", err)
	m.ready, m.told, m.hope = false, true, time.Time{}
	m.cancel(fmt.Errorf("%w: %w", errSilent, err))
	o.dialLater(ctx, m)
	o.soon(0)
}
