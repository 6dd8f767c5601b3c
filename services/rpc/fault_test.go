package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
	daisyv1 "github.com/daisy-llm/daisy/proto/daisy/v1"
	"github.com/daisy-llm/daisy/shard"
)

func TestAKilledShardBreaksThePipeline(t *testing.T) {
	g := openGolden(t, "llama")
	for dead := range 3 {
		t.Run(fmt.Sprint(dead), func(t *testing.T) {
			l := startLine(t, g.path, 3, kvcache.F16, workerOptions{})
			l.begin(t, 1, 1)
			l.run(t, 1, 0, []token.ID{1}, pass.Wants{Token: true})
			l.workers[dead].kill()
			select {
			case <-l.Broken():
			case <-time.After(5 * time.Second):
				t.Fatal("nobody noticed")
			}
			if _, err := l.Send(t.Context(), pipeline.Trace{}, []pass.Entry{{Sequence: 1, Epoch: 1, Turn: 1, First: 1, Count: 1, Tokens: []token.ID{2}}}); !errors.Is(err, pipeline.ErrBroken) {
				t.Errorf("sending into a broken pipeline gives %v", err)
			}
		})
	}
}

// TestALostLinkIsReported: the last stage goes away between two passes, and only the stage before it can see that.
func TestALostLinkIsReported(t *testing.T) {
	g := openGolden(t, "llama")
	first := startWorker(t, "s0", g.path, workerOptions{})
	faults := make(chan string, 16)
	h := dial(t, first, func(peer string, err error) { faults <- peer })
	load := pass.Load{Plan: planID, First: true, Context: 64, Parallel: 1}
	load.Layers.Last = 2
	if err := h.Load(t.Context(), load, func(pass.LoadProgress) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Begin(t.Context(), pass.Begin{Sequence: 1, Epoch: 1, Plan: planID}); err != nil {
		t.Fatal(err)
	}
	gone := startWorker(t, "s1", g.path, workerOptions{})
	gone.kill()
	err := h.Send(&pass.Pass{
		Number: 1, Coordinator: "test", Plan: planID,
		Route: []pass.Stage{
			{Shard: "s0", Address: first.address, Layers: load.Layers},
			{Shard: "s1", Address: gone.address},
		},
		Entries: []pass.Entry{{Sequence: 1, Epoch: 1, Count: 1, Tokens: []token.ID{1}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case peer := <-faults:
		if peer != "s1" {
			t.Errorf("the fault names %q", peer)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no fault was reported")
	}
}

func TestOtherVersionsAreRefused(t *testing.T) {
	g := openGolden(t, "llama")
	w := startWorker(t, "old", g.path, workerOptions{protocol: pass.Protocol + 1})
	h := dial(t, w, nil)
	select {
	case <-h.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the hop is alive")
	}
	if err := h.Err(); !errors.Is(err, pipeline.ErrVersion) || !strings.Contains(err.Error(), "same release") {
		t.Errorf("the coordinator sees %v", err)
	}
	// A shard that was never of use ends by itself, and says why.
	if err := w.kill(); err == nil || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "protocol") {
		t.Errorf("the shard ended with %v", err)
	}
}

func TestAnotherModelEndsAShardThatWasNeverOfUse(t *testing.T) {
	g := openGolden(t, "llama")
	wrong := fmt.Errorf("%w: it has another hash", shard.ErrModel)
	w := startWorker(t, "s0", g.path, workerOptions{open: func(context.Context, pass.Load) (*gguf.File, error) { return nil, wrong }})
	h := dial(t, w, nil)
	err := h.Load(t.Context(), pass.Load{Plan: planID, Context: 64, Parallel: 1}, func(pass.LoadProgress) {})
	if !errors.Is(err, pipeline.ErrModel) && !errors.Is(err, pipeline.ErrBroken) {
		t.Errorf("the coordinator sees %v", err)
	}
	select {
	case <-h.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the shard lives on")
	}
	if err := w.kill(); !errors.Is(err, shard.ErrModel) {
		t.Errorf("the shard ended with %v", err)
	}
}

func TestABlockThatDoesNotFitIsRefused(t *testing.T) {
	g := openGolden(t, "llama")
	w := startWorker(t, "s0", g.path, workerOptions{memory: 100 << 10})
	h := dial(t, w, nil)
	load := pass.Load{Plan: planID, First: true, Last: true, Context: 256, Parallel: 4}
	load.Layers.Last = 4
	if err := h.Load(t.Context(), load, func(pass.LoadProgress) {}); !errors.Is(err, pipeline.ErrMemory) {
		t.Errorf("loading gives %v", err)
	}
}

func TestEntriesThatMayNotRunAreRefused(t *testing.T) {
	g := openGolden(t, "llama")
	l := startLine(t, g.path, 2, kvcache.F16, workerOptions{})
	l.begin(t, 1, 3)
	ok := pass.Entry{Sequence: 1, Epoch: 1, Turn: 0, First: 0, Count: 3, Tokens: []token.ID{1, 2, 3}, Wants: pass.Wants{Token: true}}
	send := func(entries ...pass.Entry) []pass.Output {
		t.Helper()
		ticket, err := l.Send(t.Context(), pipeline.Trace{}, entries)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ticket.Wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r.Outputs
	}
	change := func(f func(*pass.Entry)) pass.Entry { e := ok; f(&e); return e }
	for _, c := range []struct {
		what   string
		entry  pass.Entry
		reason pass.Reason
	}{
		{"unknown sequence", change(func(e *pass.Entry) { e.Sequence = 9 }), pass.ReasonNoSequence},
		{"stale epoch", change(func(e *pass.Entry) { e.Epoch = 0 }), pass.ReasonStaleEpoch},
		{"turn ahead", change(func(e *pass.Entry) { e.Turn = 1 }), pass.ReasonGap},
		{"position ahead", change(func(e *pass.Entry) { e.First = 1 }), pass.ReasonGap},
		{"beyond the context", change(func(e *pass.Entry) { e.Count = 300; e.Tokens = make([]token.ID, 300) }), pass.ReasonBadRequest},
		{"no positions", change(func(e *pass.Entry) { e.Count = 0; e.Tokens = nil }), pass.ReasonBadRequest},
		{"tokens missing", change(func(e *pass.Entry) { e.Tokens = e.Tokens[:2] }), pass.ReasonBadRequest},
		{"token out of range", change(func(e *pass.Entry) { e.Tokens = []token.ID{1, 2, 1 << 20} }), pass.ReasonBadRequest},
		{"negative token", change(func(e *pass.Entry) { e.Tokens = []token.ID{1, -2, 3} }), pass.ReasonBadRequest},
	} {
		out := send(c.entry)
		if out[0].Refused == nil || out[0].Refused.Reason != c.reason {
			t.Errorf("%s: %+v, want refusal for %v", c.what, out[0], c.reason)
		}
	}
	// The refused entry travels on, empty; the others of its pass are computed as if it were not there.
	l.begin(t, 2, 3)
	other := change(func(e *pass.Entry) { e.Sequence = 2 })
	alone := send(other)[0].Choice
	l.begin(t, 3, 3)
	third := change(func(e *pass.Entry) { e.Sequence = 3 })
	out := send(change(func(e *pass.Entry) { e.Turn = 5 }), third, change(func(e *pass.Entry) { e.Sequence = 9 }), ok)
	if out[0].Refused == nil || out[2].Refused == nil || out[1].Choice == nil || out[1].Choice.Token != alone.Token || out[3].Choice == nil || out[3].Choice.Token != alone.Token {
		t.Errorf("beside refused entries: %+v, alone %+v", out, alone)
	}
	if out := send(change(func(e *pass.Entry) { e.Turn = 1 }), change(func(e *pass.Entry) { e.Turn = 2 })); out[0].Refused != nil || out[1].Refused == nil || out[1].Refused.Reason != pass.ReasonBadRequest {
		t.Errorf("the same sequence twice in a pass: %+v", out)
	}
}

// TestAnEpochKeepsAPrefix: a new epoch keeps part of the cache, and goes on with the very bits of the one before.
func TestAnEpochKeepsAPrefix(t *testing.T) {
	g := openGolden(t, "llama")
	l := startLine(t, g.path, 2, kvcache.F16, workerOptions{})
	ids := g.Prompts["short"].TokenIDs
	want := l.prompt(t, 1, ids, len(ids))
	l.begin(t, 2, len(ids))
	l.run(t, 2, 0, append(append([]token.ID{}, ids[:5]...), 7, 8, 9), pass.Wants{}) // a wrong turn after 5 tokens
	keep := pass.Begin{Sequence: 2, Epoch: 2, Keep: 5, Tokens: ids[:5], Prompt: len(ids)}
	begun, err := l.Begin(t.Context(), keep)
	if err != nil {
		t.Fatal(err)
	}
	for _, stage := range begun {
		for _, span := range stage.Cached {
			if span.Positions != keep.Keep {
				t.Errorf("%d positions are cached in layers %v, %d were to be kept", span.Positions, span.Layers, keep.Keep)
			}
		}
	}
	ticket, err := l.Send(t.Context(), pipeline.Trace{}, []pass.Entry{{
		Sequence: 2, Epoch: 2, First: 5, Count: len(ids) - 5, Tokens: ids[5:], Wants: pass.Wants{Logits: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := ticket.Wait(t.Context())
	if err != nil || r.Outputs[0].Refused != nil {
		t.Fatal(err, r)
	}
	if !sameBits(r.Outputs[0].Logits, want[5*l.vocab:]) {
		t.Error("the epoch that kept a prefix computes other bits")
	}
	if _, err := l.Begin(t.Context(), keep); err == nil {
		t.Error("an epoch began twice")
	}
	keep.Epoch, keep.Keep, keep.Tokens = 3, 200, append(slices.Clone(ids), make([]token.ID, 200-len(ids))...)
	begun, err = l.Begin(t.Context(), keep)
	if err != nil {
		t.Fatal(err)
	}
	for _, stage := range begun {
		if len(stage.Cached) != 1 || int(stage.Cached[0].Positions) != len(ids) {
			t.Errorf("of %d positions that were cached, %v are kept", len(ids), stage)
		}
	}
	keep.Epoch, keep.Keep = 4, 300
	if _, err := l.Begin(t.Context(), keep); err == nil {
		t.Error("an epoch keeps positions without their tokens")
	}
	if _, err := l.Begin(t.Context(), pass.Begin{Sequence: 4, Epoch: 1, Sampling: sample.Params{Temperature: float32(math.NaN())}}); err == nil {
		t.Error("a temperature that is no number was accepted")
	}
}

// TestALostControlStreamFreesItsSequences: a coordinator that dies leaves nothing behind.
func TestALostControlStreamFreesItsSequences(t *testing.T) {
	g := openGolden(t, "llama")
	w := startWorker(t, "s0", g.path, workerOptions{})
	conn, err := grpc.NewClient(w.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	control, err := daisyv1.NewShardServiceClient(conn).Control(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *daisyv1.ControlRequest) {
		t.Helper()
		if err := control.Send(r); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := control.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if f := m.GetFailure(); f != nil {
				t.Fatal(f.GetMessage())
			}
			if m.GetTag() == r.GetTag() && m.GetProgress() == nil {
				return
			}
		}
	}
	plan := &daisyv1.PlanID{Number: 1, Leader: "test"}
	ask(&daisyv1.ControlRequest{Command: &daisyv1.ControlRequest_Hello{Hello: &daisyv1.Hello{Name: "x", Protocol: pass.Protocol, Numerics: pass.Numerics}}})
	ask(&daisyv1.ControlRequest{Tag: 1, Command: &daisyv1.ControlRequest_Load{Load: &daisyv1.Load{
		Plan: plan, Last: 4, Embedding: true, Head: true, Context: 64, Parallel: 2, CacheType: daisyv1.CacheType_CACHE_TYPE_F16}}})
	ask(&daisyv1.ControlRequest{Tag: 2, Command: &daisyv1.ControlRequest_Begin{Begin: &daisyv1.Begin{Sequence: 1, Epoch: 1, Plan: plan}}})
	sequences := func() int {
		blocks, _, err := w.shard.Blocks(t.Context())
		if err != nil || len(blocks) != 1 {
			t.Fatal(blocks, err)
		}
		return blocks[0].Sequences
	}
	if n := sequences(); n != 1 {
		t.Fatalf("%d sequences after one Begin", n)
	}
	cancel()
	for deadline := time.Now().Add(5 * time.Second); sequences() != 0; {
		if time.Now().After(deadline) {
			t.Fatal("the dead coordinator's sequence is still there")
		}
		time.Sleep(time.Millisecond)
	}
}

// TestHostileFrames: what no honest peer sends ends the stream with a reason, and the shard works on.
func TestHostileFrames(t *testing.T) {
	g := openGolden(t, "llama")
	l := startLine(t, g.path, 1, kvcache.F16, workerOptions{})
	w := l.workers[0]
	conn, err := grpc.NewClient(w.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	crc := func(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
	header := func(bytes uint64) *daisyv1.PassHeader {
		return &daisyv1.PassHeader{
			Number: 1, Coordinator: "x", Plan: &daisyv1.PlanID{Number: 1, Leader: "test"}, Bytes: bytes,
			Route: []*daisyv1.Stage{{Shard: "s0", Address: w.address, Last: 4}},
		}
	}
	with := func(h *daisyv1.PassHeader, change func(*daisyv1.PassHeader)) *daisyv1.PassHeader { change(h); return h }
	payload := make([]byte, 64)
	for _, c := range []struct {
		what   string
		frames []*daisyv1.ForwardRequest
		code   codes.Code
	}{
		{"no header", []*daisyv1.ForwardRequest{{}}, codes.Internal},
		{"a payload alone", []*daisyv1.ForwardRequest{{Payload: payload, Crc32C: crc(payload)}}, codes.Internal},
		{"wrong checksum", []*daisyv1.ForwardRequest{{Header: header(64), Payload: payload, Crc32C: 1}}, codes.DataLoss},
		{"more than announced", []*daisyv1.ForwardRequest{{Header: header(60), Payload: payload, Crc32C: crc(payload)}}, codes.Internal},
		{"announces more than its credit", []*daisyv1.ForwardRequest{{Header: header(1 << 40)}}, codes.Internal},
		{"announces a third of a number", []*daisyv1.ForwardRequest{{Header: header(66)}}, codes.Internal},
		{"two headers", []*daisyv1.ForwardRequest{{Header: header(128), Payload: payload, Crc32C: crc(payload)}, {Header: header(128)}}, codes.Internal},
		{"an empty frame in between", []*daisyv1.ForwardRequest{{Header: header(128), Payload: payload, Crc32C: crc(payload)}, {}}, codes.Internal},
		{"no route", []*daisyv1.ForwardRequest{{Header: with(header(0), func(h *daisyv1.PassHeader) { h.Route = nil })}}, codes.Internal},
		{"another's route", []*daisyv1.ForwardRequest{{Header: with(header(0), func(h *daisyv1.PassHeader) { h.Route[0].Shard = "other" })}}, codes.Internal},
		{"layers that end before they begin", []*daisyv1.ForwardRequest{{Header: with(header(0), func(h *daisyv1.PassHeader) { h.Route[0].First = 9 })}}, codes.Internal},
		{"a huge count", []*daisyv1.ForwardRequest{{Header: with(header(0), func(h *daisyv1.PassHeader) {
			h.Entries = []*daisyv1.Entry{{Count: math.MaxUint32}}
		})}}, codes.Internal},
		{"too many entries", []*daisyv1.ForwardRequest{{Header: with(header(0), func(h *daisyv1.PassHeader) {
			h.Entries = make([]*daisyv1.Entry, pass.MaxEntries+1)
			for i := range h.Entries {
				h.Entries[i] = &daisyv1.Entry{}
			}
		})}}, codes.Internal},
		{"too large a payload", []*daisyv1.ForwardRequest{{Header: header(1 << 20), Payload: make([]byte, pass.MaxFrameBytes+4)}}, codes.Internal},
	} {
		t.Run(c.what, func(t *testing.T) {
			stream, err := daisyv1.NewShardServiceClient(conn).Forward(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range c.frames {
				if err := stream.Send(f); err != nil {
					break // the reason comes below
				}
			}
			if err := stream.RecvMsg(&daisyv1.ForwardResponse{}); status.Code(err) != c.code {
				t.Errorf("the stream ended with %v, want code %v", err, c.code)
			}
		})
	}
	// A pass whose rows do not fit its entries gets through the frames, and is refused by the shard.
	stream, err := daisyv1.NewShardServiceClient(conn).Forward(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := header(64)
	h.Entries = []*daisyv1.Entry{{Sequence: 1, Epoch: 1, Count: 50, Tokens: []int32{1}}}
	if err := stream.Send(&daisyv1.ForwardRequest{Header: h, Payload: payload, Crc32C: crc(payload)}); err != nil {
		t.Fatal(err)
	}
	ids := g.Prompts["short"].TokenIDs
	if got := l.greedy(t, 5, ids, 4); len(got) != 4 {
		t.Errorf("after all that the shard answers %v", got)
	}
}

// TestOverdrawnCreditEndsTheStream: a coordinator that sends more than it was granted is cut off, and the shard's queue
// stays bounded.
func TestOverdrawnCreditEndsTheStream(t *testing.T) {
	g := openGolden(t, "llama")
	w := startWorker(t, "s0", g.path, workerOptions{grant: pass.Grant{Passes: 2, Bytes: 1 << 20}})
	h := dial(t, w, nil)
	load := pass.Load{Plan: planID, First: true, Last: true, Context: 256, Parallel: 1}
	load.Layers.Last = 4
	if err := h.Load(t.Context(), load, func(pass.LoadProgress) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Begin(t.Context(), pass.Begin{Sequence: 1, Epoch: 1, Plan: planID}); err != nil {
		t.Fatal(err)
	}
	var err error
	for i := range uint32(10000) {
		err = h.Send(&pass.Pass{
			Number: uint64(i + 1), Coordinator: "test", Plan: planID,
			Route:   []pass.Stage{{Shard: "s0", Address: w.address, Layers: load.Layers}},
			Entries: []pass.Entry{{Sequence: 1, Epoch: 1, Turn: i, Count: 64, Tokens: make([]token.ID, 64)}},
		})
		if err != nil {
			break
		}
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("ten thousand passes on a credit of two: %v", err)
	}
}
