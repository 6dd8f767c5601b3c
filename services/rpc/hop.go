package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/pass"
	daisyv1 "github.com/daisy-llm/daisy/proto/daisy/v1"
)

// DialOptions are those of every connection between Daisy's processes.
func DialOptions(c credentials.TransportCredentials) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(c),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newCodec()), grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: 3 * time.Second}),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(), // what was on its way is replayed by the coordinator, or not at all
		grpc.WithDisableServiceConfig(),
	}
}

// connect makes the connection to a shard: at that address, and under that name if the connection is protected.
func connect(shard, address string, dial []grpc.DialOption) (*grpc.ClientConn, error) {
	// passthrough keeps gRPC from resolving, or guessing at, what is an address already.
	return grpc.NewClient("passthrough:///"+address, append(slices.Clone(dial), grpc.WithAuthority(authorityOf(shard)))...)
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// HopConfig describes the link to one shard.
type HopConfig struct {
	Coordinator string // this side's name
	Version     string
	Shard       string // the other side's
	Address     string
	Dial        []grpc.DialOption
	Rows        *pass.RowPool

	// Weights, if set, is what a shard that has no file of the model gets its block from.
	Weights Origin

	// Fault, if set, is called when the shard reports that passes were lost on their way from it to a peer.
	Fault func(peer string, err error)
}

// Hop is a coordinator's live link to a shard, a pipeline.Hop. It is live from the time that Ready is closed until Done is;
// Run does the work in between.
type Hop struct {
	cfg   HopConfig
	ready chan struct{} // closed when Hellos and credit are exchanged
	done  chan struct{} // closed when Run has ended, after err is set
	grant pass.Grant    // set before ready is closed
	err   error         // set before done is closed

	requests chan *daisyv1.ControlRequest
	client   daisyv1.ShardServiceClient // set before ready is closed

	fileless atomic.Bool // the shard has no file of the model

	mu      sync.Mutex
	tag     uint64
	replies map[uint64]chan *daisyv1.ControlResponse

	sending sync.Mutex                         // one pass at a time: frames of two must not mix
	forward daisyv1.ShardService_ForwardClient // set before ready is closed
}

var _ pipeline.Hop = (*Hop)(nil)

// NewHop makes a hop that Run brings to life.
func NewHop(cfg HopConfig) *Hop {
	return &Hop{
		cfg:      cfg,
		ready:    make(chan struct{}),
		done:     make(chan struct{}),
		requests: make(chan *daisyv1.ControlRequest, 64),
		replies:  make(map[uint64]chan *daisyv1.ControlResponse),
	}
}

// Shard is the name of the shard at the other end.
func (h *Hop) Shard() string { return h.cfg.Shard }

// Ready is closed when the hop may be used.
func (h *Hop) Ready() <-chan struct{} { return h.ready }

// Done is closed when the hop is dead.
func (h *Hop) Done() <-chan struct{} { return h.done }

// Err says why the hop is dead. It may be called once Done is closed.
func (h *Hop) Err() error { return h.err }

// Grant is the shard's credit. It may be called once Ready is closed.
func (h *Hop) Grant() pass.Grant { return h.grant }

// Run connects, and keeps the hop alive until ctx ends or the connection does; it returns why.
func (h *Hop) Run(ctx context.Context) error {
	err := h.run(ctx)
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err == nil || isEOF(err):
		err = errors.New("the shard closed the connection")
	}
	h.err = fromStatus(err)
	close(h.done)
	return h.err
}

func (h *Hop) run(ctx context.Context) error {
	conn, err := connect(h.cfg.Shard, h.cfg.Address, h.cfg.Dial)
	if err != nil {
		return err
	}
	defer conn.Close()
	g, ctx := errgroup.WithContext(ctx)
	h.client = daisyv1.NewShardServiceClient(conn)
	stream, err := h.client.Control(ctx)
	if err != nil {
		return err
	}
	if err := h.greet(stream); err != nil {
		return err
	}
	if h.forward, err = h.client.Forward(ctx); err != nil {
		return err
	}
	g.Go(func() error { // the shard speaks only to end the stream; what was on its way is lost then
		if err := h.forward.RecvMsg(&daisyv1.ForwardResponse{}); err != nil {
			return err
		}
		return io.EOF
	})
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case r := <-h.requests:
				if err := stream.Send(r); err != nil && !isEOF(err) { // of EOF the receiver knows the reason
					return err
				}
			}
		}
	})
	g.Go(func() error {
		for {
			r, err := stream.Recv()
			if err != nil {
				return err
			}
			h.dispatch(r)
		}
	})
	close(h.ready)
	return g.Wait()
}

// greet exchanges Hellos and receives the shard's credit.
func (h *Hop) greet(stream daisyv1.ShardService_ControlClient) error {
	hello := &daisyv1.Hello{Name: h.cfg.Coordinator, Protocol: pass.Protocol, Numerics: pass.Numerics, Version: h.cfg.Version}
	if err := stream.Send(&daisyv1.ControlRequest{Command: &daisyv1.ControlRequest_Hello{Hello: hello}}); err != nil && !isEOF(err) {
		return err
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		switch e := r.GetEvent().(type) {
		case *daisyv1.ControlResponse_Failure:
			return errorOf(e.Failure)
		case *daisyv1.ControlResponse_Hello:
			if e.Hello.GetName() != h.cfg.Shard {
				return fmt.Errorf("at %s answers shard %s, not %s", h.cfg.Address, cut(e.Hello.GetName(), maxName), h.cfg.Shard)
			}
			if e.Hello.GetProtocol() != pass.Protocol || e.Hello.GetNumerics() != pass.Numerics {
				return fmt.Errorf("%w: shard %s speaks protocol %d with numerics %d, this coordinator %d with %d", pipeline.ErrVersion,
					h.cfg.Shard, e.Hello.GetProtocol(), e.Hello.GetNumerics(), pass.Protocol, pass.Numerics)
			}
		case *daisyv1.ControlResponse_Credit:
			h.grant = pass.Grant{Passes: int(e.Credit.GetPasses()), Bytes: e.Credit.GetBytes()}
			return nil
		}
	}
}

// dispatch gives a reply to the command that waits for it, and acts on events.
func (h *Hop) dispatch(r *daisyv1.ControlResponse) {
	if f := r.GetFault(); f != nil && h.cfg.Fault != nil {
		h.cfg.Fault(cut(f.GetPeer(), maxName), errors.New(cut(f.GetMessage(), maxDetail)))
		return
	}
	h.mu.Lock()
	reply := h.replies[r.GetTag()]
	h.mu.Unlock()
	if reply == nil {
		return
	}
	if r.GetProgress() != nil && len(reply) > 0 {
		return // the progress before is unread: the next will do
	}
	select {
	case reply <- r:
	default: // a second reply to one command
	}
}

// call sends a command and waits for its reply; progress, if set, gets what comes before.
func (h *Hop) call(ctx context.Context, r *daisyv1.ControlRequest, progress func(*daisyv1.LoadProgress)) (*daisyv1.ControlResponse, error) {
	reply := make(chan *daisyv1.ControlResponse, 2) // the reply finds room beside one unread report of progress
	h.mu.Lock()
	h.tag++
	r.Tag = h.tag
	h.replies[r.Tag] = reply
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.replies, r.Tag)
		h.mu.Unlock()
	}()
	select {
	case h.requests <- r:
	case <-h.done:
		return nil, h.dead()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		select {
		case m := <-reply:
			switch e := m.GetEvent().(type) {
			case *daisyv1.ControlResponse_Failure:
				return nil, errorOf(e.Failure)
			case *daisyv1.ControlResponse_Progress:
				if progress != nil {
					progress(e.Progress)
				}
			default:
				return m, nil
			}
		case <-h.done:
			return nil, h.dead()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (h *Hop) dead() error { return fmt.Errorf("%w: %w", pipeline.ErrBroken, h.err) }

// Load has the shard hold a block. One that has no file of the model is told of what chunks it consists, and given them.
func (h *Hop) Load(ctx context.Context, load pass.Load, progress func(pass.LoadProgress)) error {
	if !h.fileless.Load() {
		err := h.load(ctx, load, progress)
		if h.cfg.Weights == nil || !errors.Is(err, errNoFile) {
			return err
		}
		h.fileless.Store(true)
	}
	root, err := h.cfg.Weights.Root(ctx)
	if err != nil {
		return err
	}
	load.Root = root
	stop, err := h.supply(ctx)
	if err != nil {
		return err
	}
	defer stop()
	return h.load(ctx, load, progress)
}

func (h *Hop) load(ctx context.Context, load pass.Load, progress func(pass.LoadProgress)) error {
	_, err := h.call(ctx, &daisyv1.ControlRequest{Command: &daisyv1.ControlRequest_Load{Load: loadToProto(load)}}, func(p *daisyv1.LoadProgress) {
		progress(pass.LoadProgress{Done: p.GetDone(), Total: p.GetTotal()})
	})
	return err
}

// Unload frees a plan's block.
func (h *Hop) Unload(ctx context.Context, plan pass.PlanID) error {
	_, err := h.call(ctx, &daisyv1.ControlRequest{Command: &daisyv1.ControlRequest_Unload{Unload: &daisyv1.Unload{Plan: planToProto(plan)}}}, nil)
	return err
}

// Begin opens an epoch of a sequence.
func (h *Hop) Begin(ctx context.Context, begin pass.Begin) (pass.Begun, error) {
	r, err := h.call(ctx, &daisyv1.ControlRequest{Command: &daisyv1.ControlRequest_Begin{Begin: beginToProto(begin)}}, nil)
	if err != nil {
		return pass.Begun{}, err
	}
	return begunFromProto(r.GetBegun())
}

// Release frees a sequence's caches.
func (h *Hop) Release(ctx context.Context, sequence pass.SequenceID) error {
	_, err := h.call(ctx, &daisyv1.ControlRequest{Command: &daisyv1.ControlRequest_Release{Release: &daisyv1.Release{Sequence: uint64(sequence)}}}, nil)
	return err
}

// Probe asks for the shard's progress counter.
func (h *Hop) Probe(ctx context.Context) (steps uint64, queued int, err error) {
	r, err := h.call(ctx, &daisyv1.ControlRequest{Command: &daisyv1.ControlRequest_Probe{Probe: &daisyv1.Probe{}}}, nil)
	if err != nil {
		return 0, 0, err
	}
	return r.GetProbe().GetSteps(), int(r.GetProbe().GetQueued()), nil
}

// Describe asks the shard for its own account of itself.
func (h *Hop) Describe(ctx context.Context) (pass.Description, error) {
	r, err := h.client.Describe(ctx, &daisyv1.DescribeRequest{})
	if err != nil {
		select {
		case <-h.done:
			err = h.dead()
		default:
		}
		return pass.Description{}, err
	}
	d := pass.Description{
		Name: cut(r.GetName(), maxName), PID: int(r.GetPid()), Address: cut(r.GetAddress(), maxName), Version: cut(r.GetVersion(), maxName),
		Protocol: r.GetProtocol(), Numerics: r.GetNumerics(), Kernels: cut(r.GetKernels(), maxName), Cores: int(r.GetCores()),
		Memory: r.GetMemory(), State: cut(r.GetState(), maxName), Passes: r.GetPasses(),
	}
	for _, b := range r.GetBlocks() {
		plan, err := planFromProto(b.GetPlan())
		if err != nil {
			return d, err
		}
		layers, err := layersFromProto(b.GetFirst(), b.GetLast())
		if err != nil {
			return d, err
		}
		d.Blocks = append(d.Blocks, pass.LoadedBlock{
			Plan: plan, Layers: layers, Resident: b.GetResident(), Model: cut(b.GetModel(), maxName), SHA256: cut(b.GetSha256(), maxName),
			Sequences: int(b.GetSequences()), Cached: b.GetCached(),
		})
	}
	return d, nil
}

// Send gives the shard a pass of which it is the first stage. It waits at most for the connection to take the bytes.
func (h *Hop) Send(p *pass.Pass) error {
	h.sending.Lock()
	defer h.sending.Unlock()
	err := sendPass(h.forward, h.cfg.Rows, p)
	if isEOF(err) { // the stream has ended, and the hop with it: Run knows the reason
		<-h.done
		err = h.dead()
	}
	return err
}

// Results receives what the shard computes as a last stage until ctx ends or the stream does.
func (h *Hop) Results(ctx context.Context, receive func(*pass.Result)) error {
	stream, err := h.client.Results(ctx, &daisyv1.ResultsRequest{Coordinator: h.cfg.Coordinator})
	if err != nil {
		return err
	}
	if _, err := stream.Header(); err != nil {
		return err
	}
	c := &collector{pool: h.cfg.Rows, limit: pass.MaxResultBytes}
	for {
		r, err := receiveResult(stream, c)
		if err != nil {
			return err
		}
		receive(r)
	}
}
