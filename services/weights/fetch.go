package weights

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/daisy-llm/daisy/pass"
	"github.com/daisy-llm/daisy/shard"
)

// limits bound every wait for others.
type limits struct {
	ask      time.Duration // for one answer; a chunk over the slowest of links takes as long
	late     time.Duration // after which a chunk is asked of a second source, if that has nothing else to do
	retry    time.Duration // before a peer that failed, or had nothing, is asked again; doubled up to retryMax
	retryMax time.Duration
	stall    time.Duration // without a chunk from anyone
	distrust time.Duration // for which a source that gave wrong bytes is asked for nothing
}

func defaultLimits() limits {
	return limits{
		ask: time.Minute, late: 5 * time.Second, retry: time.Second, retryMax: 30 * time.Second,
		stall: 2 * time.Minute, distrust: 10 * time.Minute,
	}
}

// maxPeers are asked at once, each for maxAsks chunks.
const (
	maxPeers = 16
	maxAsks  = 2
)

// bring makes chunks present and safe: those that are missing are fetched.
func (c *Cache) bring(ctx context.Context, s *slot, load pass.Load, wanted map[int]bool, progress func(done, total int64)) error {
	select {
	case s.fetching <- struct{}{}:
		defer func() { <-s.fetching }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	chunks := slices.Sorted(maps.Keys(wanted))
	missing, err := s.missing(ctx, chunks)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		if load.Root == "" {
			return fmt.Errorf("%w: %d chunks of %s", shard.ErrNoFile, len(missing), load.Model)
		}
		f := newFetch(c, s, load, missing, progress)
		began := time.Now()
		if err := f.run(ctx); err != nil {
			return err
		}
		c.cfg.Log.Info("fetched weights", "model", load.Model, "chunks", len(missing), "here", len(chunks)-len(missing),
			"MiB", f.total>>20, "from", f.givers(), "took", time.Since(began).Round(time.Millisecond))
	}
	return c.diskError(s.settle(chunks), 0)
}

// fetch is the fetching of some chunks from all sources at once: each takes, whenever it has given one, another that nobody is
// giving yet. The coordinator is the source of all who start together, so it gives first what no peer has; and each shard
// begins at a place of its own, so that those that want the same find different parts of it at each other.
type fetch struct {
	cache    *Cache
	slot     *slot
	load     pass.Load
	start    int // the chunk to begin with
	total    int64
	progress func(done, total int64)

	mu       sync.Mutex
	waiting  []int         // chunks that nobody is asked for, in order
	asked    map[int]*asks // that somebody is
	done     int64
	came     time.Time // a chunk, the last time
	fatal    error
	held     map[string][]byte // by peer
	given    map[string]int    // chunks, by source
	failures map[string]error  // the last one, by source
	changed  chan struct{}     // closed and replaced when any of this changes
}

// asks is who is being asked for a chunk.
type asks struct {
	first string
	since time.Time
	count int
}

func newFetch(c *Cache, s *slot, load pass.Load, missing []int, progress func(done, total int64)) *fetch {
	f := &fetch{
		cache: c, slot: s, load: load, start: missing[rand.IntN(len(missing))], progress: progress,
		waiting: slices.Clone(missing), asked: make(map[int]*asks), came: time.Now(), held: make(map[string][]byte),
		given: make(map[string]int), failures: make(map[string]error), changed: make(chan struct{}),
	}
	for _, i := range missing {
		_, length := s.list.span(i)
		f.total += int64(length)
	}
	return f
}

// attempt is what became of a source.
type attempt struct {
	running bool
	wait    time.Duration // before the next
	next    time.Time
}

// ended is the end of an attempt.
type ended struct {
	source any
	err    error
}

func (f *fetch) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var sources sync.WaitGroup
	defer sources.Wait()
	defer cancel()
	f.progress(0, f.total)
	if err := f.copySiblings(ctx); err != nil {
		return err
	}
	attempts := make(map[any]*attempt) // by *supply and by Peer
	ends := make(chan ended)
	try := func(source any, name string, give func(context.Context) error) {
		a := attempts[source]
		if a == nil {
			a = &attempt{wait: f.cache.limits.retry}
			attempts[source] = a
		}
		if a.running || time.Now().Before(a.next) || f.cache.distrusts(name) {
			return
		}
		a.running = true
		sources.Go(func() {
			err := give(ctx)
			f.failed(name, err)
			select {
			case ends <- ended{source, err}:
			case <-ctx.Done():
			}
		})
	}
	tick := time.NewTicker(min(f.cache.limits.late, f.cache.limits.retry) / 4)
	defer tick.Stop()
	for {
		changed, over, err := f.state()
		if over || err != nil {
			return err
		}
		offers, more := f.cache.offers()
		for _, o := range offers {
			try(o, o.name, func(ctx context.Context) error { return f.take(ctx, o.name, o.from, nil) })
		}
		for _, p := range f.peers(attempts) {
			try(p, peerName(p), func(ctx context.Context) error { return f.peer(ctx, p) })
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case <-more:
		case <-tick.C:
			f.wake() // a chunk may be late by now
		case e := <-ends:
			a := attempts[e.source]
			a.running, a.next = false, time.Now().Add(a.wait)
			if e.err != nil {
				a.wait = min(2*a.wait, f.cache.limits.retryMax)
			}
		}
	}
}

// state says whether all chunks have come, or why they never will.
func (f *fetch) state() (changed <-chan struct{}, over bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := len(f.waiting) + len(f.asked)
	switch {
	case f.fatal != nil:
		return nil, true, f.fatal
	case left == 0:
		return nil, true, nil
	case time.Since(f.came) > f.cache.limits.stall:
		return nil, true, fmt.Errorf("for %v nobody has given any of the %d chunks of %s that are missing: %s", f.cache.limits.stall, left, f.load.Model, f.reasonsLocked())
	}
	return f.changed, false, nil
}

func (f *fetch) reasonsLocked() string {
	if len(f.failures) == 0 {
		return "there is neither a coordinator that gives them nor a shard that has them"
	}
	var reasons []string
	for _, name := range slices.Sorted(maps.Keys(f.failures)) {
		reasons = append(reasons, fmt.Sprintf("%s: %v", name, f.failures[name]))
	}
	return strings.Join(reasons, "; ")
}

// givers says how many chunks came from whom.
func (f *fetch) givers() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(f.given)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, f.given[name]))
	}
	return strings.Join(parts, ", ")
}

func peerName(p Peer) string { return "shard " + p.Name }

// peers are those to ask now: the ones that are being asked, and others up to maxPeers.
func (f *fetch) peers(attempts map[any]*attempt) []Peer {
	running := 0
	for source, a := range attempts {
		if _, peer := source.(Peer); peer && a.running {
			running++
		}
	}
	all := f.cache.cfg.Peers()
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var fresh []Peer
	for _, p := range all {
		a := attempts[p]
		if running+len(fresh) >= maxPeers {
			break
		}
		if a == nil || !a.running && time.Now().After(a.next) {
			fresh = append(fresh, p)
		}
	}
	return fresh
}

// peer takes chunks from a shard as long as it has any of use.
func (f *fetch) peer(ctx context.Context, p Peer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	name := peerName(p)
	remote, err := f.cache.cfg.Dial(p)
	if err != nil {
		return err
	}
	defer remote.Close()
	defer f.hold(name, nil)
	var workers sync.WaitGroup
	defer workers.Wait()
	errs := make(chan error, maxAsks)
	for started := false; ; {
		useful, err := f.look(ctx, name, remote)
		if err != nil || !useful {
			cancel()
			return err
		}
		for range maxAsks {
			if !started {
				workers.Go(func() { errs <- f.take(ctx, name, remote, p) })
			}
		}
		started = true
		select {
		case err := <-errs:
			cancel()
			return err
		case <-time.After(f.cache.limits.retry):
		}
	}
}

// look asks a peer what it has, and says whether any of it is missing here.
func (f *fetch) look(ctx context.Context, name string, from pass.Weights) (useful bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.cache.limits.ask)
	defer cancel()
	held, err := from.Held(ctx, f.load.SHA256, f.slot.list.Chunk)
	if errors.Is(err, pass.ErrNotHeld) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	f.hold(name, held)
	f.mu.Lock()
	defer f.mu.Unlock()
	has := func(i int) bool { return hasBit(held, i) }
	if slices.ContainsFunc(f.waiting, has) {
		return true, nil
	}
	for i := range f.asked {
		if has(i) {
			return true, nil
		}
	}
	return false, nil
}

// hold notes what a peer has.
func (f *fetch) hold(name string, held []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if held == nil {
		delete(f.held, name)
	} else {
		f.held[name] = held
	}
	f.changedLocked()
}

func (f *fetch) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changedLocked()
}

func (f *fetch) changedLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// take takes chunks from a source, one by one, until it fails or ctx ends. A peer gives what it said that it has, a
// coordinator anything.
func (f *fetch) take(ctx context.Context, name string, from pass.Weights, peer any) error {
	for ctx.Err() == nil && !f.cache.distrusts(name) {
		i, changed := f.next(name, peer != nil)
		if i < 0 {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		data, err := f.ask(ctx, from, i)
		switch _, length := f.slot.list.span(i); {
		case err != nil:
		case len(data) != length || !f.slot.list.fits(i, data):
			f.cache.distrust(name)
			f.cache.cfg.Log.Warn("a source of weights gave wrong bytes: it is asked for nothing for a while, and others are asked for them",
				"source", name, "model", f.load.Model, "chunk", i)
			err = fmt.Errorf("chunk %d does not fit its hash", i)
		default:
			if err := f.slot.put(i, data); err != nil {
				f.fail(f.cache.diskError(fmt.Errorf("keep a chunk: %w", err), f.remaining()))
				return nil
			}
			f.finish(i, name)
			continue
		}
		f.giveBack(i, name, errors.Is(err, pass.ErrNotHeld))
		if !errors.Is(err, pass.ErrNotHeld) || peer == nil {
			return err
		}
	}
	return nil
}

func (f *fetch) ask(ctx context.Context, from pass.Weights, index int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cache.limits.ask)
	defer cancel()
	return from.Chunk(ctx, f.load.SHA256, f.slot.list.Chunk, index)
}

// next chooses what to ask a source for; -1: nothing before something changes.
func (f *fetch) next(name string, peer bool) (index int, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	wants := func(i int) bool { return !peer || hasBit(f.held[name], i) }
	at := -1
	if !peer {
		at = f.searchLocked(func(i int) bool { return !f.peersHaveLocked(i) })
	}
	if at < 0 {
		at = f.searchLocked(wants)
	}
	if at >= 0 {
		i := f.waiting[at]
		f.waiting = slices.Delete(f.waiting, at, at+1)
		f.asked[i] = &asks{first: name, since: time.Now(), count: 1}
		return i, nil
	}
	if len(f.waiting) == 0 {
		for i, a := range f.asked {
			if a.count == 1 && a.first != name && time.Since(a.since) > f.cache.limits.late && wants(i) {
				a.count++
				return i, nil
			}
		}
	}
	return -1, f.changed
}

// searchLocked finds, from the start on and around, where a chunk is in waiting that fits.
func (f *fetch) searchLocked(fits func(int) bool) int {
	start, _ := slices.BinarySearch(f.waiting, f.start)
	for n := range f.waiting {
		if at := (start + n) % len(f.waiting); fits(f.waiting[at]) {
			return at
		}
	}
	return -1
}

func (f *fetch) peersHaveLocked(i int) bool {
	for _, held := range f.held {
		if hasBit(held, i) {
			return true
		}
	}
	return false
}

// finish notes that a chunk has come.
func (f *fetch) finish(i int, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked[i] == nil {
		return // from a second source as well
	}
	delete(f.asked, i)
	_, length := f.slot.list.span(i)
	f.done += int64(length)
	f.given[name]++
	f.came = time.Now()
	f.progress(f.done, f.total)
	f.changedLocked()
}

// giveBack lets others give a chunk; gone says that its source no longer has it.
func (f *fetch) giveBack(i int, name string, gone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if held := f.held[name]; gone && hasBit(held, i) {
		held[i/8] &^= 1 << (i % 8)
	}
	a := f.asked[i]
	if a == nil {
		return
	}
	if a.count--; a.count == 0 {
		delete(f.asked, i)
		at, _ := slices.BinarySearch(f.waiting, i)
		f.waiting = slices.Insert(f.waiting, at, i)
	}
	f.changedLocked()
}

// fail ends the fetching: no other source would help.
func (f *fetch) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fatal == nil {
		f.fatal = err
	}
	f.changedLocked()
}

// failed notes why a source has ended.
func (f *fetch) failed(name string, err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	known := f.failures[name] != nil
	f.failures[name] = err
	f.mu.Unlock()
	if !known && !errors.Is(err, context.Canceled) {
		f.cache.cfg.Log.Debug("a source of weights failed", "source", name, "error", err)
	}
}

// remaining is how many bytes have not come.
func (f *fetch) remaining() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total - f.done
}

// distrust keeps a source from being asked for a while.
func (c *Cache) distrust(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.distrusted[name] = time.Now().Add(c.limits.distrust)
}

func (c *Cache) distrusts(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, known := c.distrusted[name]
	if known && time.Now().After(until) {
		delete(c.distrusted, name)
		return false
	}
	return known
}
