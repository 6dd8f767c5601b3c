package kernel

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Team is n workers that share one forward pass: the goroutine that calls Do, and n-1 of its own.
//
// A task is a sequence of steps, and all workers walk through it. A step is cut into pieces, which a worker takes one by
// one: first those dealt to it, then what the others have not taken yet. So nobody waits for a worker whose core the
// operating system has given to somebody else, unless that worker holds a piece; when it comes back, it skips what has been
// done without it. Whoever completes the last piece of a step leads: it alone does the small steps that follow, and opens
// the next one that is worth sharing. Any worker may lead, Do's caller or another.
//
// Workers meet in a fraction of a microsecond, because they spin; one that has to wait longer sleeps, so that its core can
// run the worker it waits for, or something else altogether. A Team of one has no goroutine and no cost.
//
// One goroutine at a time owns a Team: it alone calls Start, Do and Close.
type Team struct {
	size    int
	workers []worker
	joined  sync.WaitGroup

	mu sync.Mutex
	call

	// Of the step that is open; whoever holds a piece of it may read them.
	units, pieces int
	_             cacheLine
	left          atomic.Int32 // pieces that are not done, the opening included
	busy          atomic.Bool  // inside Do
	_             cacheLine
}

// call is what workers have to know of a Do.
type call struct {
	number  uint64
	task    func(worker int)
	closing bool // there is no task, and will be none
}

// worker is one worker's place.
type worker struct {
	gate
	_                      cacheLine
	step                   uint64 // in which it is: the call's number, and the step's in the call
	leads                  bool
	core                   atomic.Int32 // where it was last seen; -1: unknown
	since, stepped, looked time.Time    // it has its core; it began a step; it looked which core that is
	_                      cacheLine
}

type cacheLine [64]byte

// mostPieces bounds the pieces of a step, in pieces for each worker.
const mostPieces = 4

// NewTeam makes a team of n workers; Start brings them to life.
func NewTeam(n int) *Team {
	if n < 1 || n*mostPieces > maxPieces {
		panic(fmt.Sprintf("kernel: a team of %d", n))
	}
	t := &Team{size: n, workers: make([]worker, n)}
	wait := leastPatience
	if n > runtime.GOMAXPROCS(0) {
		wait = 0 // the one to wait for may need this goroutine's place
	}
	for i := range t.workers {
		t.workers[i].init(wait)
		t.workers[i].core.Store(-1)
	}
	return t
}

// Size is the number of workers, the caller of Do included.
func (t *Team) Size() int { return t.size }

// Start starts the workers; Close ends them.
func (t *Team) Start() {
	t.closing = false
	number := t.number
	for i := 1; i < t.size; i++ {
		t.joined.Go(func() { t.work(i, number) })
	}
}

// Close ends the workers and waits for them. It is not for use inside Do.
func (t *Team) Close() {
	t.open(t.announce(nil), 0, 0)
	t.joined.Wait()
}

// Do has the workers do a task, numbered from 0, the caller, and returns when all its steps are done. A worker may then
// still be on its way through the task, or enter it, with nothing left to do. Do allocates nothing; a caller that wants the
// same keeps task instead of writing a new closure. The team must be started.
func (t *Team) Do(task func(worker int)) {
	if t.size == 1 {
		task(0)
		return
	}
	w := &t.workers[0]
	w.step, w.leads = t.announce(task), true
	t.busy.Store(true)
	task(0)
	t.busy.Store(false)
}

// announce tells the workers of a task, if they look, and gives the number before its first step.
func (t *Team) announce(task func(worker int)) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.call = call{t.number + 1, task, task == nil}
	return t.first()
}

func (c *call) first() uint64 { return c.number << stepBits & stepMask }

// work is the loop of a worker; done is the number of the last call that is not its business.
func (t *Team) work(worker int, done uint64) {
	w := &t.workers[worker]
	for {
		seen := w.opened()
		t.mu.Lock()
		c := t.call
		t.mu.Unlock()
		switch {
		case c.number == done:
			t.await(worker, seen)
			continue
		case c.closing:
			return
		}
		done = c.number
		w.step, w.leads = c.first(), false
		c.task(worker)
		if w.leads {
			t.open(w.step+1, 0, 0) // for Do, which waits in an earlier step
		}
	}
}

// Share does one step of a task: so many units of work, in pieces of at least `least` units, or in one if there are too
// few. It returns when all are done, by whomever. Every worker's task has the same steps in the same order.
//
// A worker that comes late runs the code between steps too, perhaps when Do has long returned: that code must read only
// what does not change, or atomics, and write nothing that others see. Only do, which then is not called, is free of that.
func (t *Team) Share(worker, units, least int, do func(from, to int)) {
	if t.size == 1 {
		if units > 0 {
			do(0, units)
		}
		return
	}
	w := &t.workers[worker]
	w.step++
	done := int32(0)
	if w.leads {
		pieces := t.cut(units, least)
		if pieces < 2 {
			if units > 0 {
				do(0, units)
			}
			return
		}
		t.giveWay(worker)
		w.leads = false
		t.open(w.step, units, pieces)
		done = 1 // the opening itself
	} else {
		if w.opened() != w.step {
			return
		}
		t.giveWay(worker)
	}
	for i := range t.size {
		from := &t.workers[(worker+i)%t.size]
		for {
			piece, ok := from.take(w.step)
			if !ok {
				break
			}
			do(t.units*piece/t.pieces, t.units*(piece+1)/t.pieces)
			done++
		}
	}
	if done > 0 && t.left.Add(-done) == 0 {
		w.leads = true
		return
	}
	t.await(worker, w.step)
}

// cut says into how many pieces a step is cut: the same number for each worker.
func (t *Team) cut(units, least int) int {
	pieces := min(units/max(least, 1), t.size*mostPieces)
	if pieces > t.size {
		pieces -= pieces % t.size
	}
	return pieces
}

// open opens a step and deals its pieces to the workers. The opening counts as one more piece: all others may be done before every
// worker is dealt to, most of all where there are fewer pieces than workers, and a step that followed then would be
// overwritten by this one.
func (t *Team) open(step uint64, units, pieces int) {
	t.units, t.pieces = units, pieces
	t.left.Store(int32(pieces) + 1)
	for i := t.size - 1; i >= 0; i-- {
		t.workers[i].deal(step, pieces*i/t.size, pieces*(i+1)/t.size)
	}
	for i := range t.workers {
		t.workers[i].wake()
	}
}
