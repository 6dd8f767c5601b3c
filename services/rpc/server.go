// Package rpc puts a shard on the network, and is the coordinator's view of one: a Server around a shard.Shard, a Hop
// that is a pipeline.Hop, and the Outlet over which shards feed each other. Nothing else knows protobuf.
//
// Frames of rows are raw little-endian float32 with a CRC-32C, at most pass.MaxFrameBytes each; on the wire they are
// ordinary protobuf messages, which the codec here writes and reads without copying the rows through protobuf.
// Everything that a peer sends is checked against the bounds of package pass before it is believed. Receiving never
// waits for sending: a received pass goes into a queue that has room for all the credit granted, or, if its sender
// overdrew, ends the stream.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/daisy-llm/daisy/pass"
	daisyv1 "github.com/daisy-llm/daisy/proto/daisy/v1"
	"github.com/daisy-llm/daisy/shard"
)

// ServerConfig describes the network face of one shard.
type ServerConfig struct {
	Description pass.Description // what does not change: name, pid, address, versions, kernels, cores, memory
	Shard       *shard.Shard
	Outlet      *Outlet
	Rows        *pass.RowPool
	Credentials credentials.TransportCredentials
	Caller      Caller              // who calls, where Credentials protect the connection; nil: anyone may call anything
	Options     []grpc.ServerOption // beside those that the protocol needs
	Log         *slog.Logger

	// Weights, if set, gives chunks of model files to other shards; Offered is told of coordinators that give them, until it
	// calls what it returns.
	Weights pass.Weights
	Offered func(coordinator string, from pass.Weights) (withdraw func())

	// Loaded, if set, is called whenever the blocks held have changed.
	Loaded func(blocks []shard.Held)
}

// Server serves one shard.
type Server struct {
	daisyv1.UnimplementedShardServiceServer
	cfg     ServerConfig
	codec   codec
	unfit   chan error    // capacity 1: why this shard can be of no use
	offered chan struct{} // capacity maxOffers: streams on which coordinators give chunks

	mu     sync.Mutex
	proven bool // a coordinator has loaded a block here: later misfits are the coordinator's trouble
}

// NewServer makes the server; it serves while Run runs.
func NewServer(cfg ServerConfig) *Server {
	return &Server{cfg: cfg, codec: newCodec(), unfit: make(chan error, 1), offered: make(chan struct{}, maxOffers)}
}

// Run serves on the listener until ctx ends. It ends early, with an error that says what to do, if the first coordinator
// to ask cannot use this shard: another protocol, another arithmetic, another model file.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	gate := gate{s.cfg.Caller}
	srv := grpc.NewServer(append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(gate.unary),
		grpc.ChainStreamInterceptor(gate.stream),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.Creds(s.cfg.Credentials),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.ForceServerCodecV2(s.codec),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxConcurrentStreams(4096),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
	}, s.cfg.Options...)...)
	daisyv1.RegisterShardServiceServer(srv, s)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return srv.Serve(l) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			srv.Stop() // peers keep their streams open for ever: there is no gentler way that ends
			select {
			case err := <-s.unfit: // the reason that came first
				return err
			default:
				return ctx.Err()
			}
		case err := <-s.unfit:
			late := time.AfterFunc(unfitGrace, srv.Stop)
			defer late.Stop()
			srv.GracefulStop() // the coordinator shall hear why
			return err
		}
	})
	return g.Wait()
}

// unfitGrace is how long a coordinator may take to hear why it cannot use this shard.
const unfitGrace = time.Second

// Keep-alive finds peers that fell silent without closing their connections.
const (
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 20 * time.Second
)

// handshakeTimeout is how long a peer may take to open a connection.
const handshakeTimeout = 10 * time.Second

// Windows of HTTP/2's flow control: some frames of rows on their way, so that a long wire stays full. Left to itself gRPC
// would look for them with a ping beside every message, which costs a hop more than the message does.
const (
	streamWindow = 4 * pass.MaxFrameBytes
	connWindow   = 4 * streamWindow
)

// misfit records that a coordinator cannot use this shard. The shard ends if none ever could.
func (s *Server) misfit(err error) {
	s.mu.Lock()
	proven := s.proven
	s.mu.Unlock()
	if proven {
		s.cfg.Log.Error("a coordinator cannot use this shard", "error", err)
		return
	}
	select {
	case s.unfit <- err:
	default:
	}
}

// Describe answers from outside the compute loop's passes, in between.
func (s *Server) Describe(ctx context.Context, _ *daisyv1.DescribeRequest) (*daisyv1.DescribeResponse, error) {
	d := &s.cfg.Description
	blocks, passes, err := s.cfg.Shard.Blocks(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	out := &daisyv1.DescribeResponse{
		Name: d.Name, Pid: uint32(d.PID), Address: d.Address, Version: d.Version,
		Protocol: d.Protocol, Numerics: d.Numerics, Kernels: d.Kernels, Cores: uint32(d.Cores), Memory: d.Memory,
		State: "joining", Passes: passes,
	}
	for _, b := range blocks {
		out.State = "ready"
		out.Blocks = append(out.Blocks, &daisyv1.LoadedBlock{
			Plan:  planToProto(b.Load.Plan),
			First: uint32(b.Load.Layers.First), Last: uint32(b.Load.Layers.Last),
			Resident: b.Resident, Model: cut(b.Load.Model, maxName), Sha256: b.Load.SHA256,
			Sequences: uint32(b.Sequences), Cached: b.Cached,
		})
	}
	return out, nil
}

// Forward receives passes until the sender closes, or sends what cannot be accepted.
func (s *Server) Forward(stream daisyv1.ShardService_ForwardServer) error {
	c := &collector{pool: s.cfg.Rows, limit: s.cfg.Shard.Grant().Bytes}
	for {
		p, err := receivePass(stream, c)
		if err != nil {
			if isEOF(err) {
				return stream.SendAndClose(&daisyv1.ForwardResponse{})
			}
			return toStatus(err)
		}
		if p.Route[0].Shard != s.cfg.Description.Name {
			return toStatus(fmt.Errorf("pass %d is for shard %s, this is %s", p.Number, p.Route[0].Shard, s.cfg.Description.Name))
		}
		if err := s.cfg.Shard.Submit(p); err != nil {
			return toStatus(err)
		}
	}
}

// Results sends what the shard computes as a last stage, to the coordinator that asks.
func (s *Server) Results(r *daisyv1.ResultsRequest, stream daisyv1.ShardService_ResultsServer) error {
	c := s.cfg.Outlet.coordination(r.GetCoordinator())
	if c == nil {
		return toStatus(errors.New("open a control stream first"))
	}
	// One stream at a time takes results: those of a pipeline must not go to the one before.
	select {
	case c.reading <- struct{}{}:
		defer func() { <-c.reading }()
	case <-stream.Context().Done():
		return toStatus(stream.Context().Err())
	case <-c.ended:
		return toStatus(errors.New("the control stream has ended"))
	}
	if err := stream.SendHeader(nil); err != nil { // tells the coordinator that results will come
		return err
	}
	for stream.Context().Err() == nil {
		select {
		case <-stream.Context().Done():
		case <-c.ended:
			return toStatus(errors.New("the control stream has ended"))
		case r := <-c.results:
			if err := sendResult(stream, s.cfg.Rows, r); err != nil {
				return err
			}
		}
	}
	return toStatus(stream.Context().Err())
}
