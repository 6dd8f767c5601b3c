package kernel

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// Team is n workers that share one forward pass: the goroutine that calls Do, and n-1 of its own.
//
// They meet in a fraction of a microsecond, because they spin; they give the processor away when one of them is
// late, and sleep when there is no work. A Team of one has no goroutine and no cost.
//
// One goroutine at a time owns a Team: it alone calls Start, Do and Close.
type Team struct {
	size    int
	task    func(worker int)
	closing bool
	workers []*worker
	joined  sync.WaitGroup

	_    cacheLine
	call atomic.Uint32 // counts the calls of Do
	_    cacheLine
	done atomic.Int32 // workers that finished the current call
	_    cacheLine
	meet barrier
}

type cacheLine [64]byte

// worker is where one of the team's own goroutines waits for work.
type worker struct {
	parked atomic.Bool
	wake   chan struct{} // capacity 1: a token for a parked worker
	_      cacheLine
}

// NewTeam makes a team of n workers; Start brings them to life.
func NewTeam(n int) *Team {
	if n < 1 {
		panic(fmt.Sprintf("kernel: a team of %d", n))
	}
	t := &Team{size: n}
	t.meet.size = int32(n)
	for range n - 1 {
		t.workers = append(t.workers, &worker{wake: make(chan struct{}, 1)})
	}
	return t
}

// Size is the number of workers, the caller of Do included.
func (t *Team) Size() int { return t.size }

// Start starts the workers; Close ends them.
func (t *Team) Start() {
	t.closing = false
	call := t.call.Load()
	for i, w := range t.workers {
		t.joined.Go(func() { t.work(w, i+1, call) })
	}
}

// Close ends the workers and waits for them. It is not for use inside Do.
func (t *Team) Close() {
	t.closing = true
	t.announce()
	t.joined.Wait()
}

// Do runs task on every worker, numbered from 0, the caller, and returns when all have. It allocates nothing; a caller
// that wants the same keeps task instead of writing a new closure. The team must be started.
func (t *Team) Do(task func(worker int)) {
	if t.size == 1 {
		task(0)
		return
	}
	t.task = task
	t.done.Store(0)
	t.announce()
	task(0)
	others := int32(t.size - 1)
	for w := (waiting{}); t.done.Load() != others; {
		w.wait()
	}
}

// Barrier makes the workers inside Do wait for each other: all of them call it, equally often.
func (t *Team) Barrier() { t.meet.wait() }

// announce publishes the owner's fields to the workers and wakes those that sleep.
func (t *Team) announce() {
	t.call.Add(1)
	for _, w := range t.workers {
		if w.parked.Load() && w.parked.CompareAndSwap(true, false) {
			w.wake <- struct{}{}
		}
	}
}

// work is the loop of a worker; call is the last call of Do that is not its business.
func (t *Team) work(w *worker, number int, call uint32) {
	for {
		call++
		w.await(&t.call, call)
		if t.closing {
			return
		}
		t.task(number)
		t.done.Add(1)
	}
}

// await returns once counter has reached call. The flag is raised before the last look at the counter, and announce
// looks at the flag after it has counted: one of the two sees the other.
func (w *worker) await(counter *atomic.Uint32, call uint32) {
	for s := (waiting{}); counter.Load() != call; {
		if s.patient() {
			s.wait()
			continue
		}
		w.parked.Store(true)
		if counter.Load() == call && w.parked.CompareAndSwap(true, false) {
			return
		}
		<-w.wake
	}
}

// barrier lets size goroutines pass together, again and again.
type barrier struct {
	size    int32
	_       cacheLine
	arrived atomic.Int32
	_       cacheLine
	round   atomic.Uint32
	_       cacheLine
}

func (b *barrier) wait() {
	if b.size == 1 {
		return
	}
	round := b.round.Load()
	if b.arrived.Add(1) == b.size {
		b.arrived.Store(0)
		b.round.Add(1)
		return
	}
	for w := (waiting{}); b.round.Load() == round; {
		w.wait()
	}
}

// waiting is how a goroutine waits for another that is about to be ready: it spins, because that is fastest; then it
// offers the processor to others between looks, because the other one may need this very core.
type waiting struct{ looks int }

const (
	spins  = 1 << 9  // looks with a PAUSE between them: some tens of microseconds
	yields = 1 << 10 // looks, at the latest, after which a worker without work sleeps
)

// patient says whether it is still worth waiting awake.
func (w *waiting) patient() bool { return w.looks < yields }

func (w *waiting) wait() {
	w.looks++
	if w.looks <= spins {
		pause()
		if w.looks%16 == 0 {
			safePoint()
		}
		return
	}
	runtime.Gosched()
	yieldProcessor()
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
