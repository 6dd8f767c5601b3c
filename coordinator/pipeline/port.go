package pipeline

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/daisy-llm/daisy/pass"
)

// A Port is a Hop as pipelines share it. Credit and results are the hop's, not a pipeline's: the port counts what all
// pipelines together have on its way through the shard, and gives each result of its one stream to the pipeline that waits for
// a pass of that number. It lives as long as its hop.
type Port struct {
	Hop
	ended chan struct{} // closed when Run has ended, after err is set
	err   error

	mu      sync.Mutex
	credit  *credit            // made when it is first asked for: the hop knows its grant once it is ready
	waiting map[uint64]*Ticket // passes that end here, by number
}

// credit is what is left of a grant.
type credit struct {
	grant         pass.Grant
	passes, bytes *semaphore.Weighted
}

// NewPort makes the port of a hop. It has results while Run runs.
func NewPort(h Hop) *Port {
	return &Port{Hop: h, ended: make(chan struct{}), waiting: make(map[uint64]*Ticket)}
}

// Run receives what the shard computes as a last stage until ctx ends or the hop dies, and returns why. The hop must be ready. A
// port whose Run has ended is of no use any more: what the shard returned meanwhile is lost.
func (p *Port) Run(ctx context.Context) error {
	defer close(p.ended)
	if p.err = p.Results(ctx, p.receive); p.err == nil {
		p.err = fmt.Errorf("the results of shard %s have ended", p.Shard())
	}
	return p.err
}

// receive hands a result to whoever waits for it. Nobody may: its pipeline has broken, or it is of a former life of this link.
func (p *Port) receive(r *pass.Result) {
	p.mu.Lock()
	t := p.waiting[r.Number]
	p.mu.Unlock()
	if t != nil && r.Plan == t.p.cfg.Plan {
		t.p.receive(t, r)
	}
}

func (p *Port) expect(t *Ticket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting[t.number] = t
}

func (p *Port) forget(t *Ticket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, t.number)
}

// credits is the credit of the ready hop, the same one for all pipelines.
func (p *Port) credits() *credit {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.credit == nil {
		g := p.Grant()
		p.credit = &credit{grant: g, passes: semaphore.NewWeighted(int64(g.Passes)), bytes: semaphore.NewWeighted(g.Bytes)}
	}
	return p.credit
}

// account is the credit of several shards. All pipelines take it from them in the same order, that of the shards' names,
// whatever the order in which they visit them: so two that wait for each other's credit there cannot be.
type account []*credit

// try takes the credit of a pass if it is there.
func (a account) try(bytes int64) bool {
	for i, c := range a {
		if !c.passes.TryAcquire(1) {
			a[:i].give(bytes)
			return false
		}
		if !c.bytes.TryAcquire(bytes) {
			c.passes.Release(1)
			a[:i].give(bytes)
			return false
		}
	}
	return true
}

// take waits for the credit of a pass.
func (a account) take(ctx context.Context, bytes int64) error {
	for i, c := range a {
		if err := c.passes.Acquire(ctx, 1); err != nil {
			a[:i].give(bytes)
			return err
		}
		if err := c.bytes.Acquire(ctx, bytes); err != nil {
			c.passes.Release(1)
			a[:i].give(bytes)
			return err
		}
	}
	return nil
}

// give returns the credit of a pass.
func (a account) give(bytes int64) {
	for _, c := range a {
		c.passes.Release(1)
		c.bytes.Release(bytes)
	}
}
