package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"google.golang.org/grpc"

	"github.com/daisy-llm/daisy/pass"
	daisyv1 "github.com/daisy-llm/daisy/proto/daisy/v1"
	"github.com/daisy-llm/daisy/shard"
)

// Outlet carries what a shard computes: passes on to other shards, one stream each, and results back to coordinators. It
// is the shard.Outlet of a process. Nothing in it blocks the shard: every queue has room for all the credit that
// coordinators can have.
type Outlet struct {
	rows  *pass.RowPool
	grant pass.Grant
	dial  []grpc.DialOption
	log   *slog.Logger
	fresh chan *link // links that Run has to start

	mu           sync.Mutex
	links        map[string]*link         // by address
	coordinators map[string]*coordination // by name
}

// coordination is what a shard keeps for a coordinator whose control stream is open.
type coordination struct {
	results chan *pass.Result             // as many as its credit
	events  chan *daisyv1.ControlResponse // to its control stream
	reading chan struct{}                 // capacity 1: full while a stream takes results
	cancel  context.CancelCauseFunc       // ends the control stream
	ended   chan struct{}                 // closed when the stream has ended and its sequences are free
}

// link is the stream to one next stage.
type link struct {
	shard, address string
	queue          chan *pass.Pass
}

// maxLinks bounds how many shards one shard forwards to, and maxCoordinators how many feed it.
const (
	maxLinks        = pass.MaxStages
	maxCoordinators = 16
)

// NewOutlet makes an outlet; dial says how to reach other shards.
func NewOutlet(rows *pass.RowPool, grant pass.Grant, log *slog.Logger, dial ...grpc.DialOption) *Outlet {
	return &Outlet{
		rows: rows, grant: grant, dial: dial, log: log,
		fresh:        make(chan *link, maxLinks),
		links:        make(map[string]*link),
		coordinators: make(map[string]*coordination),
	}
}

// Run owns the links until ctx ends.
func (o *Outlet) Run(ctx context.Context) error {
	var links sync.WaitGroup
	defer links.Wait()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l := <-o.fresh:
			links.Go(func() { o.carry(ctx, l) })
		}
	}
}

// Forward queues a pass for the stage that its route begins with.
func (o *Outlet) Forward(p *pass.Pass) {
	if err := o.queue(p); err != nil {
		o.fault(p.Coordinator, p.Route[0].Shard, err)
	}
}

// queue holds the lock until the pass lies in a link's queue, so that a link that ends has seen all its passes.
func (o *Outlet) queue(p *pass.Pass) error {
	next := p.Route[0]
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.links[next.Address]
	if l == nil {
		if len(o.links) >= maxLinks {
			return fmt.Errorf("this shard forwards to %d others already", maxLinks)
		}
		l = &link{shard: next.Shard, address: next.Address, queue: make(chan *pass.Pass, maxCoordinators*o.grant.Passes)}
		o.links[next.Address] = l
		o.fresh <- l // has room for all links
	}
	select {
	case l.queue <- p:
		return nil
	default: // more than all credit together
		return shard.ErrBusy
	}
}

// Return queues a result for its coordinator. One whose control stream has ended gets none.
func (o *Outlet) Return(coordinator string, r *pass.Result) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.coordinators[coordinator]
	if c == nil {
		return
	}
	select {
	case c.results <- r:
	default:
		c.cancel(fmt.Errorf("results of %d passes wait unread: %w", cap(c.results), shard.ErrBusy))
	}
}

// carry sends a link's passes over one stream. When the stream breaks, what was on its way is lost, every coordinator is
// told so, and the link is forgotten: the next pass opens a new one.
func (o *Outlet) carry(ctx context.Context, l *link) {
	err := o.stream(ctx, l)
	o.mu.Lock()
	delete(o.links, l.address)
	o.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	o.log.Warn("the link to the next shard broke", "next", l.shard, "address", l.address, "queued", len(l.queue), "error", err)
	o.fault("", l.shard, err)
}

func (o *Outlet) stream(ctx context.Context, l *link) error {
	conn, err := connect(l.shard, l.address, o.dial)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := daisyv1.NewShardServiceClient(conn).Forward(ctx)
	if err != nil {
		return err
	}
	broken := make(chan error, 1)
	go func() { // the peer speaks only to end the stream
		err := stream.RecvMsg(&daisyv1.ForwardResponse{})
		if err == nil {
			err = errors.New("the shard closed the stream")
		}
		broken <- err
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-broken:
			return err
		case p := <-l.queue:
			err := sendPass(stream, o.rows, p)
			if errors.Is(err, io.EOF) { // the reason is on the receiving side
				err = <-broken
			}
			if err != nil {
				return err
			}
		}
	}
}

// fault tells a coordinator, or all if it is empty, that passes on their way to a peer are lost, and why.
func (o *Outlet) fault(coordinator, peer string, err error) {
	event := &daisyv1.ControlResponse{Event: &daisyv1.ControlResponse_Fault{
		Fault: &daisyv1.Fault{Peer: peer, Message: cut(err.Error(), maxDetail)},
	}}
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, c := range o.coordinators {
		if coordinator == "" || coordinator == name {
			c.post(event)
		}
	}
}

// post queues an event or a reply; a coordinator that does not read them loses its stream.
func (c *coordination) post(r *daisyv1.ControlResponse) {
	select {
	case c.events <- r:
	default:
		c.cancel(fmt.Errorf("%d replies and events wait unread: %w", cap(c.events), shard.ErrBusy))
	}
}

// join enters a coordinator. One of the same name that is still there is an earlier life of it: its stream is ended first.
func (o *Outlet) join(ctx context.Context, name string, cancel context.CancelCauseFunc) (*coordination, error) {
	c := &coordination{
		results: make(chan *pass.Result, 2*o.grant.Passes),
		events:  make(chan *daisyv1.ControlResponse, 1024),
		reading: make(chan struct{}, 1),
		cancel:  cancel,
		ended:   make(chan struct{}),
	}
	for {
		o.mu.Lock()
		old := o.coordinators[name]
		if old == nil {
			if len(o.coordinators) >= maxCoordinators {
				o.mu.Unlock()
				return nil, fmt.Errorf("%d coordinators are connected, as many as a shard serves", maxCoordinators)
			}
			o.coordinators[name] = c
			o.mu.Unlock()
			return c, nil
		}
		o.mu.Unlock()
		old.cancel(errors.New("a new stream of the same coordinator has replaced this one"))
		select {
		case <-old.ended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// leave removes a coordinator; its sequences are free by then.
func (o *Outlet) leave(name string, c *coordination) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.coordinators, name)
	close(c.ended)
}

func (o *Outlet) coordination(name string) *coordination {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.coordinators[name]
}
