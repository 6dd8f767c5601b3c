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
	sleepers atomic.Int32 // goroutines that sleep here, or are about to
	patience atomic.Int64 // nanoseconds awake before that; see learn
	mu       sync.Mutex
	cond     *sync.Cond // of opened
}

// How long a goroutine waits awake. A sleep costs some 50 us until it has ended, and more on a virtual machine: if one
// worker slept for less than that, the next would have to wait for it, sleep in turn, and so on through a whole pass. So
// whoever slept only soon to be woken waits longer the next time. A worker that a busy competitor has pushed aside is gone
// for a time slice, several milliseconds: who waited for it should have slept at once, also because the operating system
// moves the one pushed aside only to a core that is idle. For the same reason nobody calls sched_yield here: it would give
// a competitor whole time slices.
const (
	leastPatience = 40 * time.Microsecond
	mostPatience  = 400 * time.Microsecond
	soon          = 600 * time.Microsecond // awake and asleep together
	late          = 1000 * time.Microsecond
)

func (g *gate) init(patience time.Duration) {
	g.patience.Store(int64(patience))
	g.cond = sync.NewCond(&g.mu)
}

// learn from how long a wait was that ended in a sleep. A gate without patience never gets any.
func (g *gate) learn(waited time.Duration) {
	patience := time.Duration(g.patience.Load())
	switch {
	case waited < soon:
		g.patience.Store(int64(min(2*patience, mostPatience)))
	case waited > late && patience > leastPatience:
		g.patience.Store(int64(leastPatience))
	}
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
	patience := time.Duration(g.patience.Load())
	if patience > 0 && g.awake(seen, patience) {
		return
	}
	began := time.Now()
	runtime.Gosched() // to a goroutine of this process, if one waits for a place
	g.sleepers.Add(1)
	g.mu.Lock()
	for g.opened.Load() == seen {
		g.cond.Wait()
	}
	g.mu.Unlock()
	g.sleepers.Add(-1)
	g.learn(patience + time.Since(began))
}

// awake spins until the gate opens, and says whether it has.
func (g *gate) awake(seen uint32, patience time.Duration) bool {
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
		} else if time.Since(start) > patience {
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
