package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// gate is where a worker finds its pieces of the step that is open, and waits for the next step.
type gate struct {
	dealt    atomic.Uint64 // the step | the next piece | one past the last
	_        cacheLine
	asleep   atomic.Bool  // or about to be
	patience atomic.Int64 // nanoseconds awake before that; see learn
	mu       sync.Mutex
	cond     *sync.Cond // of dealt
}

// dealt has 13 bits for each piece, and the rest for the step: 16 bits for its number in the call, the others for the call's. So
// the steps of a call of long ago are none of today's.
const (
	pieceBits = 13
	maxPieces = 1<<pieceBits - 1
	stepBits  = 16
	stepMask  = 1<<(64-2*pieceBits) - 1
)

// How long a goroutine waits awake. A sleep costs some 50 us until it has ended, and more on a virtual machine, so whoever
// slept only soon to be woken waits longer the next time. A worker that a busy competitor has pushed aside is gone for a
// time slice, several milliseconds: who waited for it should have slept at once, also because the operating system moves the
// one pushed aside only to a core that is idle.
const (
	leastPatience = 40 * time.Microsecond
	mostPatience  = 400 * time.Microsecond
	longest       = 20 * time.Millisecond  // in the middle of a task
	soon          = 600 * time.Microsecond // awake and asleep together
	late          = 1000 * time.Microsecond
)

func (g *gate) init(patience time.Duration) {
	g.patience.Store(int64(patience))
	g.cond = sync.NewCond(&g.mu)
}

// opened is the step that is open, or was the last.
func (g *gate) opened() uint64 { return g.dealt.Load() >> (2 * pieceBits) }

// deal opens a step with the pieces [from, to) for this worker; wake has to follow.
func (g *gate) deal(step uint64, from, to int) {
	g.dealt.Store(step<<(2*pieceBits) | uint64(from)<<pieceBits | uint64(to))
}

// take takes a piece, if the step is still open and has one here.
func (g *gate) take(step uint64) (piece int, ok bool) {
	for {
		d := g.dealt.Load()
		next, end := d>>pieceBits&maxPieces, d&maxPieces
		if d>>(2*pieceBits) != step || next >= end {
			return 0, false
		}
		if g.dealt.CompareAndSwap(d, d+1<<pieceBits) {
			return int(next), true
		}
	}
}

// wake wakes the worker if it sleeps. It said so before its last look at dealt, and dealt was changed before this look at
// asleep: one of the two sees the other.
func (g *gate) wake() {
	if g.asleep.Load() && g.asleep.CompareAndSwap(true, false) {
		g.mu.Lock()
		g.cond.Signal()
		g.mu.Unlock()
	}
}

// await returns once a step is open that is not the one seen.
func (t *Team) await(worker int, seen uint64) {
	g := &t.workers[worker].gate
	patience := time.Duration(g.patience.Load())
	if g.opened() != seen || patience > 0 && t.awake(worker, seen, patience) {
		return
	}
	began := time.Now()
	runtime.Gosched() // to a goroutine of this process, if one waits for a place
	g.mu.Lock()
	for g.opened() == seen {
		g.asleep.Store(true) // each time: who was about to wake it for the step before may have reset it
		if g.opened() == seen {
			g.cond.Wait()
		}
	}
	g.mu.Unlock()
	g.asleep.Store(false)
	g.learn(patience + time.Since(began))
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

// awake waits until a step is open that is not the one seen, and says whether it has come. In the middle of a task, some
// worker lost its core while it held a piece: it will be back soon, and may even be waiting for this core.
func (t *Team) awake(worker int, seen uint64, patience time.Duration) bool {
	const looks = 16 // between glances at the clock
	g := &t.workers[worker].gate
	var start time.Time
	for {
		for range looks {
			if g.opened() != seen {
				return true
			}
			pause()
		}
		safePoint()
		if start.IsZero() {
			start = time.Now()
		} else if waited := time.Since(start); waited > patience {
			if !t.busy.Load() || waited > longest {
				return false
			}
			t.spread(worker, t.size)
			yield()
			runtime.Gosched()
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
