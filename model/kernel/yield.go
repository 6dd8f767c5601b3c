package kernel

import "time"

const (
	// turnOfCore is how long a worker keeps its core before it offers it to others: less than any operating system's time
	// slice, which are 3 ms and more.
	turnOfCore = 2 * time.Millisecond

	// pushedAside is how long a step takes at least in which a worker was pushed off its core, and at most otherwise, unless
	// it is one of a large model's.
	pushedAside = 1500 * time.Microsecond
)

// giveWay offers the worker's core to whoever else wants it, from time to time. A worker that used up its time slice would
// lose the core in the middle of a piece, and all would wait until it gets it back: so it gives the core up before, while it
// holds no piece and the others can go on without it. If nobody else wants the core, that costs next to nothing. A worker
// that leads keeps the core, and only says where it is.
func (t *Team) giveWay(worker int) {
	w, now := &t.workers[worker], time.Now()
	if now.Sub(w.stepped) > pushedAside {
		w.since = now // a new time slice
	}
	w.stepped = now
	if now.Sub(w.since) < turnOfCore {
		return
	}
	if w.leads {
		if now.Sub(w.looked) > turnOfCore {
			w.core.Store(int32(currentCore()))
			w.looked = now
		}
		return
	}
	yield()
	t.spread(worker, worker)
	w.since = time.Now()
	w.stepped = w.since
}

// spread moves the worker to a core without workers, if it shares one with a worker whose number is below. Beside a competitor, the
// operating system is content with two workers on one core and the competitor on the other: to it, these are three threads
// on two cores. But two workers on one core are no faster than one.
func (t *Team) spread(worker, below int) {
	var cores coreSet
	here := currentCore()
	t.workers[worker].core.Store(int32(here))
	if here < 0 {
		return
	}
	shared := false
	for i := range t.workers {
		if core := int(t.workers[i].core.Load()); i != worker && core >= 0 {
			cores.add(core)
			shared = shared || core == here && i < below
		}
	}
	if shared {
		leave(&cores)
		t.workers[worker].core.Store(int32(currentCore()))
	}
}
