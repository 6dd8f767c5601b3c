package rpc

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/daisy-llm/daisy/pass"
	daisyv1 "github.com/daisy-llm/daisy/proto/daisy/v1"
)

// Origin is the model file of a coordinator.
type Origin interface {
	pass.Weights
	// Root names the list of its chunks.
	Root(ctx context.Context) (string, error)
}

// Peer is a connection to a shard that may give weights.
type Peer struct {
	remoteWeights
	conn *grpc.ClientConn
}

// NewPeer makes a connection, which is opened with the first question.
func NewPeer(shard, address string, dial []grpc.DialOption) (*Peer, error) {
	conn, err := connect(shard, address, dial)
	if err != nil {
		return nil, err
	}
	client := daisyv1.NewShardServiceClient(conn)
	return &Peer{remoteWeights{func(ctx context.Context, q *daisyv1.WeightsRequest) (*daisyv1.WeightsResponse, error) {
		return client.Weights(ctx, q)
	}}, conn}, nil
}

// Close ends it.
func (p *Peer) Close() error { return p.conn.Close() }

// offers is how many streams of chunks a coordinator opens to a shard, each with one chunk on its way: enough to fill a
// long wire.
const offers = 4

// offerAgain is how long a stream that broke while the shard still loads is waited with.
const offerAgain = 500 * time.Millisecond

// supply answers what the shard asks for until stop is called. It has a connection of its own, so that passes and commands do
// not queue behind chunks.
func (h *Hop) supply(ctx context.Context) (stop func(), err error) {
	conn, err := connect(h.cfg.Shard, h.cfg.Address, h.cfg.Dial)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	client := daisyv1.NewShardServiceClient(conn)
	var streams sync.WaitGroup
	for range offers {
		streams.Go(func() {
			for ctx.Err() == nil {
				h.offer(ctx, client) // the shard asks for what it did not get on another stream, or on the next
				select {
				case <-ctx.Done():
				case <-time.After(offerAgain):
				}
			}
		})
	}
	return func() {
		cancel()
		conn.Close()
		streams.Wait()
	}, nil
}

// offer answers on one stream until it ends.
func (h *Hop) offer(ctx context.Context, client daisyv1.ShardServiceClient) {
	stream, err := client.Supply(ctx)
	if err != nil {
		return
	}
	next := &daisyv1.SupplyRequest{Coordinator: h.cfg.Coordinator}
	for stream.Send(next) == nil {
		q, err := stream.Recv()
		if err != nil {
			return
		}
		next = &daisyv1.SupplyRequest{Answer: answer(ctx, h.cfg.Weights, q.GetQuestion())}
	}
}
