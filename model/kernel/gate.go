package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// gate is a place where goroutines wait for an event that comes again and again.
type gate struct {
	opened   atomic.Uint32 // so often
	_        cacheLine
	sleepers atomic.Int32  // goroutines that sleep here, or are about to
	patience time.Duration // awake, before that
	mu       sync.Mutex
	cond     *sync.Cond // of opened
}

// patience is how long a goroutine waits awake: about what it costs to put it to sleep and wake it. Less, and every
// hiccup of the machine costs a sleep; more, and a busy competitor costs more, because the operating system moves the
// worker that it pushed aside only to a core that is idle. For the same reason nobody calls sched_yield here: it would
// give a competitor whole time slices.
const patience = 40 * time.Microsecond

func (g *gate) init(patience time.Duration) {
	g.patience = patience
	g.cond = sync.NewCond(&g.mu)
}

// open lets through everybody who waits.
func (g *gate) open() {
	g.opened.Add(1)
	// A goroutine counts itself as a sleeper before its last look at opened, and opened was counted up before this look at
	// the sleepers: one of the two sees the other.
	if g.sleepers.Load() != 0 {
		g.mu.Lock()
		g.cond.Broadcast()
		g.mu.Unlock()
	}
}

// await returns once the gate has opened more often than seen.
func (g *gate) await(seen uint32) {
	if g.patience > 0 && g.awake(seen) {
		return
	}
	runtime.Gosched() // to a goroutine of this process, if one waits for a place
	g.sleepers.Add(1)
	g.mu.Lock()
	for g.opened.Load() == seen {
		g.cond.Wait()
	}
	g.mu.Unlock()
	g.sleepers.Add(-1)
}

// awake spins until the gate opens, and says whether it has.
func (g *gate) awake(seen uint32) bool {
	const looks = 16 // between glances at the clock
	var start time.Time
	for {
		for range looks {
			if g.opened.Load() != seen {
				return true
			}
			pause()
		}
		safePoint()
		if start.IsZero() {
			start = time.Now()
		} else if time.Since(start) > g.patience {
			return false
		}
	}
}

// safePoint is a place where the runtime can stop this goroutine: a loop of nothing but atomics and assembly has none,
// and a garbage collection would wait for it with all the others stopped. The frame and the call make the compiler check
// the stack here, and that is where requests to stop arrive.
//
//go:noinline
func safePoint() {
	var frame [256]byte
	touch(&frame)
}

//go:noinline
func touch(frame *[256]byte) { frame[0] = 1 }
