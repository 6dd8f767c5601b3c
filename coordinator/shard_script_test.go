package coordinator

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// proc is a shard's process: what it holds outlives its links. It keeps the contract between coordinators and shards to the
// letter: weights and caches belong to layers, and no layer runs a position before the one that its cache ends with.
type proc struct {
	w      *world
	name   string
	pid    int
	killed chan struct{}
	inbox  chan *flight

	mu        sync.Mutex
	resumed   chan struct{} // nil while it runs; closed when a stopped process goes on
	blocks    map[pass.PlanID]pass.Load
	sequences map[sequenceKey]*cached
	links     map[string]*link // by coordinator
	steps     uint64
	reads     int // layers whose weights were read
	computed  int // positions times layers
}

type layerIndex = model.LayerIndex

type sequenceKey struct {
	coordinator string
	id          pass.SequenceID
}

// cached is what a shard has of a sequence. Values stand for rows: what enters a layer, per position.
type cached struct {
	epoch  pass.Epoch
	plan   pass.PlanID
	turn   uint32
	layers map[layerIndex][]uint64 // what entered the layer
	logs   map[layerIndex][]uint64 // what is to enter the layer, where a block ended there
	tokens []token.ID              // last stage only
	prompt int
}

// flight is a pass on its way.
type flight struct {
	*pass.Pass
	origin bool // it comes from the coordinator
	rows   []uint64
	at     model.LayerIndex // that the rows are to enter
}

func newProc(w *world, name string, pid int) *proc {
	return &proc{w: w, name: name, pid: pid, killed: make(chan struct{}), inbox: make(chan *flight, 1024),
		blocks: map[pass.PlanID]pass.Load{}, sequences: map[sequenceKey]*cached{}, links: map[string]*link{}}
}

func (p *proc) run() {
	for {
		select {
		case <-p.killed:
			return
		case f := <-p.inbox:
			select {
			case <-p.killed:
				return
			case <-time.After(time.Duration(p.w.delay.Load())):
			}
			if p.awake(context.Background(), nil) != nil {
				return
			}
			p.compute(f)
		}
	}
}

func (p *proc) dead() bool {
	select {
	case <-p.killed:
		return true
	default:
		return false
	}
}

func (p *proc) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dead() {
		close(p.killed)
	}
}

// pause is SIGSTOP, resume SIGCONT.
func (p *proc) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resumed = make(chan struct{})
}

func (p *proc) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.resumed)
	p.resumed = nil
}

// awake waits while the process is stopped, unless it or a link ends.
func (p *proc) awake(ctx context.Context, l *link) error {
	p.mu.Lock()
	resumed := p.resumed
	p.mu.Unlock()
	if resumed == nil {
		return nil
	}
	var done chan struct{}
	if l != nil && isReady(l) {
		done = l.done
	}
	select {
	case <-resumed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return fmt.Errorf("%w: %w", pipeline.ErrBroken, l.err)
	case <-p.killed:
		return fmt.Errorf("shard %s was killed", p.name)
	}
}

func isReady(l *link) bool {
	select {
	case <-l.ready:
		return true
	default:
		return false
	}
}

func (p *proc) connect(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[l.coordinator] = l
}

// disconnect frees the sequences of a coordinator whose link has ended.
func (p *proc) disconnect(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.links[l.coordinator] == l {
		delete(p.links, l.coordinator)
		maps.DeleteFunc(p.sequences, func(k sequenceKey, _ *cached) bool { return k.coordinator == l.coordinator })
	}
}

func (p *proc) sequencesHeld() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead() {
		return 0
	}
	return len(p.sequences)
}

func (p *proc) progress() (uint64, int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.steps, len(p.inbox), nil
}

// load reads the layers that no plan here has yet.
func (p *proc) load(l pass.Load, end <-chan struct{}) error {
	p.mu.Lock()
	missing := 0
	for i := l.Layers.First; i < l.Layers.Last; i++ {
		if !p.holdsLocked(i) {
			missing++
		}
	}
	old, there := p.blocks[l.Plan]
	p.mu.Unlock()
	if there && old != l {
		return fmt.Errorf("layers %v are loaded for plan %v", old.Layers, l.Plan)
	}
	select {
	case <-time.After(time.Duration(missing) * p.w.read):
	case <-p.killed:
		<-end
		return fmt.Errorf("%w: shard %s was killed", pipeline.ErrBroken, p.name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blocks[l.Plan] = l
	p.reads += missing
	if missing > 0 {
		p.w.events("%s reads %d layers for %v", p.name, missing, l.Layers)
	}
	return nil
}

func (p *proc) holdsLocked(i model.LayerIndex) bool {
	for _, b := range p.blocks {
		if i >= b.Layers.First && i < b.Layers.Last {
			return true
		}
	}
	return false
}

func (p *proc) unload(plan pass.PlanID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.blocks, plan)
	maps.DeleteFunc(p.sequences, func(_ sequenceKey, q *cached) bool { return q.plan == plan })
}

func (p *proc) describe() pass.Description {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := pass.Description{Name: p.name}
	for id, load := range p.blocks {
		d.Blocks = append(d.Blocks, pass.LoadedBlock{Plan: id, Layers: load.Layers, Model: load.Model, SHA256: load.SHA256})
	}
	return d
}

func (p *proc) begin(coordinator string, b pass.Begin) (pass.Begun, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	load, ok := p.blocks[b.Plan]
	if !ok {
		return pass.Begun{}, fmt.Errorf("no block of plan %v", b.Plan)
	}
	if load.Last && len(b.Tokens) != int(b.Keep) {
		return pass.Begun{}, fmt.Errorf("%d tokens for %d positions kept", len(b.Tokens), b.Keep)
	}
	key := sequenceKey{coordinator, b.Sequence}
	q := p.sequences[key]
	if q == nil {
		q = &cached{layers: map[layerIndex][]uint64{}, logs: map[layerIndex][]uint64{}}
		p.sequences[key] = q
	} else if b.Epoch <= q.epoch {
		return pass.Begun{}, fmt.Errorf("epoch %d has begun already", q.epoch)
	}
	q.epoch, q.plan, q.turn, q.prompt = b.Epoch, b.Plan, 0, b.Prompt
	q.tokens = nil
	if load.Last {
		q.tokens = slices.Clone(b.Tokens)
	}
	begun := pass.Begun{}
	maps.DeleteFunc(q.layers, func(i model.LayerIndex, _ []uint64) bool { return i < load.Layers.First || i >= load.Layers.Last })
	for i := load.Layers.First; i < load.Layers.Last; i++ {
		q.layers[i] = q.layers[i][:min(len(q.layers[i]), int(b.Keep))]
		n := token.Position(len(q.layers[i]))
		if at := len(begun.Cached) - 1; at >= 0 && begun.Cached[at].Positions == n {
			begun.Cached[at].Layers.Last++
		} else {
			begun.Cached = append(begun.Cached, pass.Span{Layers: model.Layers{First: i, Last: i + 1}, Positions: n})
		}
	}
	for _, before := range slices.Sorted(maps.Keys(q.logs)) {
		q.logs[before] = q.logs[before][:min(len(q.logs[before]), int(b.Keep))]
		begun.Logs = append(begun.Logs, pass.Log{Before: before, Positions: token.Position(len(q.logs[before]))})
	}
	return begun, nil
}

func (p *proc) release(coordinator string, id pass.SequenceID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sequences, sequenceKey{coordinator, id})
}

func (p *proc) submit(f *flight) {
	select {
	case <-p.killed:
	case p.inbox <- f:
	}
}

// compute runs one pass and hands it on.
func (p *proc) compute(f *flight) {
	p.mu.Lock()
	stage := f.Route[0]
	load, ok := p.blocks[f.Plan]
	if len(f.Entries) != 1 {
		p.w.t.Errorf("a pass of %d entries", len(f.Entries))
	}
	copied := *f.Pass
	copied.Entries = slices.Clone(f.Entries)
	e := &copied.Entries[0]
	refuse := func(reason pass.Reason, format string, args ...any) {
		e.Refused = &pass.Refusal{Shard: p.name, Reason: reason, Detail: fmt.Sprintf(format, args...)}
		switch reason {
		case pass.ReasonPlan, pass.ReasonNoSequence, pass.ReasonStaleEpoch: // what a loss leaves on its way
		default:
			p.w.events("%s refuses positions of %d: %s", p.name, e.Sequence, reason)
		}
	}
	var choice *sample.Choice
	q := p.sequences[sequenceKey{f.Coordinator, e.Sequence}]
	switch {
	case e.Refused != nil:
	case !ok || load.Layers != stage.Layers:
		refuse(pass.ReasonPlan, "no block")
	case q == nil || q.plan != f.Plan:
		refuse(pass.ReasonNoSequence, "not begun")
	case q.epoch != e.Epoch:
		refuse(pass.ReasonStaleEpoch, "epoch %d, it is in %d", e.Epoch, q.epoch)
	case f.Replay.Len() > 0:
		p.replay(f, q, load, e, refuse)
	case e.Turn != q.turn:
		refuse(pass.ReasonGap, "turn %d, next is %d", e.Turn, q.turn)
	case int(e.First) > q.least(load.Layers) || load.Last && int(e.First) > len(q.tokens):
		refuse(pass.ReasonGap, "position %d of %d cached", e.First, q.least(load.Layers))
	default:
		q.turn++
		if load.First {
			f.rows, f.at = embed(e), 0
		}
		for i := load.Layers.First; i < load.Layers.Last; i++ {
			q.layers[i] = q.layers[i][:e.First]
			p.layer(f, q, i)
		}
		q.log(load, e, f.rows)
		if load.Last {
			q.tokens = append(q.tokens[:e.First], e.Tokens...)
			if e.Wants.Token {
				id := p.w.next(q.tokens, f.rows[len(f.rows)-1])
				choice = &sample.Choice{Alternative: sample.Alternative{Token: id, Logprob: -1}}
			}
		}
	}
	p.steps++
	copied.Route = copied.Route[1:]
	l := p.links[f.Coordinator]
	p.mu.Unlock()
	if len(copied.Route) > 0 {
		next := p.w.proc(copied.Route[0].Shard)
		if next.dead() {
			if l != nil {
				l.fault(next.name, errors.New("connection refused"))
			}
			return
		}
		next.submit(&flight{Pass: &copied, rows: f.rows, at: f.at})
		return
	}
	if l != nil {
		l.results <- &pass.Result{Number: copied.Number, Plan: copied.Plan, Outputs: []pass.Output{
			{Sequence: e.Sequence, Epoch: e.Epoch, Turn: e.Turn, Refused: e.Refused, Choice: choice},
		}}
	}
}

// replay runs the layers that a replay pass names, as far as they are here.
func (p *proc) replay(f *flight, q *cached, load pass.Load, e *pass.Entry, refuse func(pass.Reason, string, ...any)) {
	from, to := max(f.Replay.First, load.Layers.First), min(f.Replay.Last, load.Layers.Last)
	end := int(e.First) + e.Count
	for i := from; i < to; i++ {
		if len(q.layers[i]) != int(e.First) {
			refuse(pass.ReasonGap, "layer %d has %d positions", i, len(q.layers[i]))
			return
		}
	}
	switch {
	case f.origin && f.Replay.First == 0:
		if !load.First {
			refuse(pass.ReasonBadRequest, "no embedding here")
			return
		}
		f.rows, f.at = embed(e), 0
	case f.origin:
		if len(q.logs[f.Replay.First]) < end {
			refuse(pass.ReasonGap, "the log before layer %d has %d positions", f.Replay.First, len(q.logs[f.Replay.First]))
			return
		}
		f.rows, f.at = slices.Clone(q.logs[f.Replay.First][e.First:end]), f.Replay.First
	}
	if e.Wants != (pass.Wants{}) {
		refuse(pass.ReasonBadRequest, "a replay wants something")
		return
	}
	for i := from; i < to; i++ {
		p.layer(f, q, i)
	}
	if from < to && to == load.Layers.Last {
		q.log(load, e, f.rows)
	}
}

func embed(e *pass.Entry) []uint64 {
	rows := make([]uint64, e.Count)
	for i, id := range e.Tokens {
		rows[i] = digest(uint64(id), uint64(int(e.First)+i))
	}
	return rows
}

// layer runs one layer over the rows: every output depends on all that the layer has cached.
func (p *proc) layer(f *flight, q *cached, i model.LayerIndex) {
	if f.at != i || len(f.rows) != f.Entries[0].Count {
		p.w.t.Errorf("%d rows before layer %d came to layer %d, for %d positions", len(f.rows), f.at, i, f.Entries[0].Count)
		return
	}
	out := make([]uint64, len(f.rows))
	for n, row := range f.rows {
		q.layers[i] = append(q.layers[i], row)
		out[n] = digest(append([]uint64{uint64(i)}, q.layers[i]...)...)
	}
	p.computed += len(out)
	f.rows, f.at = out, i+1
}

// log keeps what leaves the block, unless positions before are missing.
func (q *cached) log(load pass.Load, e *pass.Entry, rows []uint64) {
	if log := q.logs[load.Layers.Last]; !load.Last && len(log) >= int(e.First) {
		q.logs[load.Layers.Last] = append(log[:e.First:e.First], rows...)
	}
}

// least is how many positions every layer of a block has.
func (q *cached) least(layers model.Layers) int {
	if layers.Len() == 0 {
		return 1 << 30
	}
	n := len(q.layers[layers.First])
	for i := layers.First; i < layers.Last; i++ {
		n = min(n, len(q.layers[i]))
	}
	return n
}

func digest(values ...uint64) uint64 {
	h := fnv.New64a()
	for _, v := range values {
		var b [8]byte
		for i := range b {
			b[i] = byte(v >> (8 * i))
		}
		h.Write(b[:])
	}
	return h.Sum64()
}
