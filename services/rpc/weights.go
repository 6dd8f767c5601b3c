package rpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daisy-llm/daisy/pass"
	daisyv1 "github.com/daisy-llm/daisy/proto/daisy/v1"
)

// maxOffers bounds the streams on which coordinators give chunks to one shard.
const maxOffers = maxCoordinators * offers

// answer finds what was asked for. That there is no such thing is an answer as well.
func answer(ctx context.Context, from pass.Weights, q *daisyv1.WeightsRequest) *daisyv1.WeightsResponse {
	payload, err := find(ctx, from, q)
	if err == nil && len(payload) > pass.MaxFrameBytes {
		err = fmt.Errorf("%d bytes: at most %d are sent", len(payload), pass.MaxFrameBytes)
	}
	if err != nil {
		return &daisyv1.WeightsResponse{Missing: cut(err.Error(), maxDetail), Absent: errors.Is(err, pass.ErrNotHeld)}
	}
	return &daisyv1.WeightsResponse{Payload: payload}
}

func find(ctx context.Context, from pass.Weights, q *daisyv1.WeightsRequest) ([]byte, error) {
	if err := checkText("hash", q.GetSha256()+q.GetList().GetRoot(), maxName); err != nil {
		return nil, err
	}
	if q.GetChunkBytes() > pass.ChunkBytes || q.GetChunk() >= pass.MaxChunks {
		return nil, fmt.Errorf("chunk %d of %d bytes: out of bounds", q.GetChunk(), q.GetChunkBytes())
	}
	switch piece := q.GetPiece().(type) {
	case *daisyv1.WeightsRequest_List:
		list, err := from.List(ctx, q.GetSha256(), piece.List.GetRoot())
		if err != nil {
			return nil, err
		}
		rest := list[min(len(list), int(piece.List.GetOffset())):]
		return rest[:min(len(rest), pass.MaxFrameBytes)], nil
	case *daisyv1.WeightsRequest_Held:
		return from.Held(ctx, q.GetSha256(), int(q.GetChunkBytes()))
	case *daisyv1.WeightsRequest_Chunk:
		return from.Chunk(ctx, q.GetSha256(), int(q.GetChunkBytes()), int(piece.Chunk))
	}
	return nil, errors.New("a piece that is not known here")
}

// Weights gives other shards what this one has of model files.
func (s *Server) Weights(ctx context.Context, q *daisyv1.WeightsRequest) (*daisyv1.WeightsResponse, error) {
	if s.cfg.Weights == nil {
		return nil, status.Error(codes.Unimplemented, "this shard gives no weights")
	}
	r := answer(ctx, s.cfg.Weights, q)
	if ctx.Err() != nil {
		return nil, toStatus(ctx.Err())
	}
	return r, nil
}

// Supply makes a coordinator a source of chunks for as long as it keeps the stream open.
func (s *Server) Supply(stream daisyv1.ShardService_SupplyServer) error {
	if s.cfg.Offered == nil {
		return status.Error(codes.Unimplemented, "this shard takes no weights")
	}
	select {
	case s.offered <- struct{}{}:
		defer func() { <-s.offered }()
	default:
		return status.Errorf(codes.ResourceExhausted, "%d streams of weights are open", maxOffers)
	}
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	o := &offer{stream: stream, asking: make(chan struct{}, 1), end: cancel, ended: ctx.Done()}
	withdraw := s.cfg.Offered(cut(hello.GetCoordinator(), maxName), remoteWeights{o.ask})
	defer withdraw()
	<-ctx.Done()
	return toStatus(context.Cause(ctx))
}

// offer is a stream on which a coordinator answers questions, one at a time.
type offer struct {
	stream daisyv1.ShardService_SupplyServer
	asking chan struct{}           // capacity 1
	end    context.CancelCauseFunc // ends the stream
	ended  <-chan struct{}
}

// ask may wait for the questions of others. One that is given up halfway ends the stream: an answer without its question would be
// taken for that to the next.
func (o *offer) ask(ctx context.Context, q *daisyv1.WeightsRequest) (*daisyv1.WeightsResponse, error) {
	select {
	case o.asking <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-o.ended:
		return nil, errOfferEnded
	}
	type outcome struct {
		r   *daisyv1.WeightsResponse
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		defer func() { <-o.asking }()
		err := o.stream.Send(&daisyv1.SupplyResponse{Question: q})
		var r *daisyv1.SupplyRequest
		if err == nil {
			r, err = o.stream.Recv()
		}
		if err != nil {
			o.end(err)
		}
		done <- outcome{r.GetAnswer(), err}
	}()
	select {
	case d := <-done:
		return d.r, d.err
	case <-o.ended:
		return nil, errOfferEnded
	case <-ctx.Done():
		o.end(context.Cause(ctx))
		return nil, context.Cause(ctx)
	}
}

var errOfferEnded = errors.New("the coordinator gives no more")

// remoteWeights is another process's pass.Weights.
type remoteWeights struct {
	ask func(context.Context, *daisyv1.WeightsRequest) (*daisyv1.WeightsResponse, error)
}

var _ pass.Weights = remoteWeights{}

// get asks for one piece.
func (w remoteWeights) get(ctx context.Context, q *daisyv1.WeightsRequest) ([]byte, error) {
	r, err := w.ask(ctx, q)
	switch {
	case err != nil:
		return nil, fromStatus(err)
	case r.GetAbsent():
		return nil, pass.ErrNotHeld
	case r.GetMissing() != "":
		return nil, errors.New(cut(r.GetMissing(), maxDetail))
	case len(r.GetPayload()) > pass.MaxFrameBytes:
		return nil, fmt.Errorf("%d bytes came: at most %d are accepted", len(r.GetPayload()), pass.MaxFrameBytes)
	}
	return r.GetPayload(), nil
}

// List asks for page after page.
func (w remoteWeights) List(ctx context.Context, sha256, root string) ([]byte, error) {
	var list []byte
	for {
		page, err := w.get(ctx, &daisyv1.WeightsRequest{Sha256: sha256, Piece: &daisyv1.WeightsRequest_List{
			List: &daisyv1.ListPage{Root: root, Offset: uint32(len(list))},
		}})
		if err != nil {
			return nil, err
		}
		list = append(list, page...)
		if len(page) < pass.MaxFrameBytes {
			return list, nil
		}
		if len(list) > pass.MaxListBytes {
			return nil, fmt.Errorf("a list of more than %d bytes", pass.MaxListBytes)
		}
	}
}

// Held asks which chunks there are.
func (w remoteWeights) Held(ctx context.Context, sha256 string, chunkBytes int) ([]byte, error) {
	return w.get(ctx, &daisyv1.WeightsRequest{Sha256: sha256, ChunkBytes: uint32(chunkBytes), Piece: &daisyv1.WeightsRequest_Held{Held: &daisyv1.HeldChunks{}}})
}

// Chunk asks for a chunk.
func (w remoteWeights) Chunk(ctx context.Context, sha256 string, chunkBytes, index int) ([]byte, error) {
	return w.get(ctx, &daisyv1.WeightsRequest{Sha256: sha256, ChunkBytes: uint32(chunkBytes), Piece: &daisyv1.WeightsRequest_Chunk{Chunk: uint32(index)}})
}
