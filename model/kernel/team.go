package kernel

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// Team is n workers that share one forward pass: the goroutine that calls Do, and n-1 of its own.
//
// They meet in a fraction of a microsecond, because they spin; one that has to wait longer sleeps, so that its core can
// run the worker it waits for, or something else altogether. A Team of one has no goroutine and no cost.
//
// One goroutine at a time owns a Team: it alone calls Start, Do and Close.
type Team struct {
	size    int
	task    func(worker int)
	closing bool
	joined  sync.WaitGroup

	calls    gate         // opens for the workers when Do has a task, and on Close
	finished gate         // opens for Do when the last worker has done the task
	working  atomic.Int32 // workers that still do it
	_        cacheLine
	rounds   gate         // opens when all have come to the barrier
	arrived  atomic.Int32 // at the barrier
	_        cacheLine
}

type cacheLine [64]byte

// NewTeam makes a team of n workers; Start brings them to life.
func NewTeam(n int) *Team {
	if n < 1 {
		panic(fmt.Sprintf("kernel: a team of %d", n))
	}
	t := &Team{size: n}
	wait := leastPatience
	if n > runtime.GOMAXPROCS(0) {
		wait = 0 // the one to wait for may need this goroutine's place
	}
	for _, g := range []*gate{&t.calls, &t.finished, &t.rounds} {
		g.init(wait)
	}
	return t
}

// Size is the number of workers, the caller of Do included.
func (t *Team) Size() int { return t.size }

// Start starts the workers; Close ends them.
func (t *Team) Start() {
	t.closing = false
	call := t.calls.opened.Load()
	for worker := 1; worker < t.size; worker++ {
		t.joined.Go(func() { t.work(worker, call) })
	}
}

// Close ends the workers and waits for them. It is not for use inside Do.
func (t *Team) Close() {
	t.closing = true
	t.calls.open()
	t.joined.Wait()
}

// Do runs task on every worker, numbered from 0, the caller, and returns when all have. It allocates nothing; a caller
// that wants the same keeps task instead of writing a new closure. The team must be started.
func (t *Team) Do(task func(worker int)) {
	if t.size == 1 {
		task(0)
		return
	}
	finished := t.finished.opened.Load()
	t.task = task
	t.working.Store(int32(t.size - 1))
	t.calls.open()
	task(0)
	t.finished.await(finished)
}

// work is the loop of a worker; call counts the calls that are not its business.
func (t *Team) work(worker int, call uint32) {
	for {
		t.calls.await(call)
		call++
		if t.closing {
			return
		}
		t.task(worker)
		if t.working.Add(-1) == 0 {
			t.finished.open()
		}
	}
}

// Barrier makes the workers inside Do wait for each other: all of them call it, equally often.
func (t *Team) Barrier() {
	if t.size == 1 {
		return
	}
	round := t.rounds.opened.Load()
	if t.arrived.Add(1) == int32(t.size) {
		t.arrived.Store(0)
		t.rounds.open()
		return
	}
	t.rounds.await(round)
}
