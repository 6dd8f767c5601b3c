package rpc

import (
	"bytes"
	"hash/crc32"
	"io"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
	daisyv1 "github.com/daisy-llm/daisy/proto/daisy/v1"
)

// wire is a stream that hands out messages as they would come off the network, cut into buffers anywhere.
type wire struct {
	messages [][]byte
	cut      int
}

func (w *wire) RecvMsg(m any) error {
	if len(w.messages) == 0 {
		return io.EOF
	}
	var buffers mem.BufferSlice
	for b := w.messages[0]; len(b) > 0; {
		n := min(len(b), w.cut)
		buffers = append(buffers, mem.SliceBuffer(bytes.Clone(b[:n])))
		b = b[n:]
	}
	w.messages = w.messages[1:]
	return newCodec().Unmarshal(buffers, m)
}

// SendMsg keeps what would go out.
func (w *wire) SendMsg(m any) error {
	buffers, err := newCodec().Marshal(m)
	if err != nil {
		return err
	}
	w.messages = append(w.messages, buffers.Materialize())
	return nil
}

func testPass(rows int) *pass.Pass {
	p := &pass.Pass{
		Number: 3, Coordinator: "c", Plan: pass.PlanID{Number: 2, Leader: "c"}, TraceParent: "00-01-02-01",
		Route: []pass.Stage{{Shard: "a", Address: "127.0.0.1:1", Layers: model.Layers{First: 1, Last: 3}}, {Shard: "b"}},
		Entries: []pass.Entry{
			{Sequence: 1, Epoch: 2, Turn: 3, First: 4, Count: 2, Tokens: []token.ID{5, 6}, Wants: pass.Wants{Token: true, Logprobs: true, Top: 3}},
			{Sequence: 2, Epoch: 1, Count: 1, Tokens: []token.ID{0}, Refused: &pass.Refusal{Shard: "x", Reason: pass.ReasonGap, Detail: "why"}},
		},
		Rows: make([]float32, rows),
	}
	for i := range p.Rows {
		p.Rows[i] = float32(i) / 3
	}
	return p
}

// TestPassesCrossTheWire: of every size around a frame's, cut into buffers of every size, a pass arrives as it left; and
// what travels is protobuf that any other implementation reads.
func TestPassesCrossTheWire(t *testing.T) {
	const full = pass.MaxFrameBytes / 4
	for _, rows := range []int{0, 1, 255, 256, 257, full - 1, full, full + 1, 2*full + 7} {
		for _, cut := range []int{1 << 14, 1 << 30} {
			pool := &pass.RowPool{}
			sent := testPass(rows)
			w := &wire{cut: cut}
			if err := sendPass(w, pool, sent); err != nil {
				t.Fatal(err)
			}
			plain := &daisyv1.ForwardRequest{}
			if err := proto.Unmarshal(w.messages[0], plain); err != nil || plain.GetHeader().GetNumber() != 3 ||
				crc32.Checksum(plain.GetPayload(), castagnoli) != plain.GetCrc32C() {
				t.Errorf("%d rows: not protobuf as anybody knows it: %v", rows, err)
			}
			got, err := receivePass(w, &collector{pool: pool, limit: 1 << 30})
			if err != nil {
				t.Fatal(err)
			}
			want := testPass(rows)
			if !bytes.Equal(asBytes(got.Rows), asBytes(want.Rows)) {
				t.Errorf("%d rows: other values arrived", rows)
			}
			if a, b := passToProto(got), passToProto(want); !proto.Equal(a, b) {
				t.Errorf("%d rows: %v arrived, %v left", rows, a, b)
			}
		}
	}
}

func FuzzPass(f *testing.F) {
	for _, rows := range []int{0, 3, 700} {
		w := &wire{}
		if err := sendPass(w, &pass.RowPool{}, testPass(rows)); err != nil {
			f.Fatal(err)
		}
		f.Add(w.messages[0], uint8(7))
	}
	f.Fuzz(func(t *testing.T, data []byte, cut uint8) {
		w := &wire{messages: [][]byte{data, data}, cut: int(cut) + 1}
		p, err := receivePass(w, &collector{pool: &pass.RowPool{}, limit: 1 << 20})
		if err != nil {
			return
		}
		if len(p.Rows) > 1<<18 || len(p.Entries) > pass.MaxEntries || len(p.Route) < 1 {
			t.Errorf("believed %d values, %d entries, %d stages", len(p.Rows), len(p.Entries), len(p.Route))
		}
		for _, e := range p.Entries {
			if e.Count < 0 || e.Count > pass.MaxCount || e.First < 0 || e.Wants.Top > pass.MaxTop {
				t.Errorf("believed %+v", e)
			}
		}
	})
}

func FuzzResult(f *testing.F) {
	w := &wire{}
	r := &pass.Result{Number: 1, Outputs: []pass.Output{
		{Sequence: 1, Logits: []float32{1, 2, 3}, Hidden: []float32{4}},
		{Choice: &sample.Choice{Alternative: sample.Alternative{Token: 5, Logprob: -1}, Top: []sample.Alternative{{Token: 5}}}},
	}}
	if err := sendResult(w, &pass.RowPool{}, r); err != nil {
		f.Fatal(err)
	}
	f.Add(w.messages[0], uint8(7))
	f.Fuzz(func(t *testing.T, data []byte, cut uint8) {
		w := &wire{messages: [][]byte{data, data}, cut: int(cut) + 1}
		r, err := receiveResult(w, &collector{pool: &pass.RowPool{}, limit: 1 << 20})
		if err != nil {
			return
		}
		values := 0
		for _, o := range r.Outputs {
			values += len(o.Logits) + len(o.Hidden)
		}
		if values > 1<<18 {
			t.Errorf("believed %d values", values)
		}
	})
}

// FuzzControl: whatever a command says, what is made of it is within bounds.
func FuzzControl(f *testing.F) {
	for _, r := range []*daisyv1.ControlRequest{
		{Tag: 1, Command: &daisyv1.ControlRequest_Load{Load: loadToProto(pass.Load{SHA256: "00", Context: 5, Parallel: 1})}},
		{Tag: 2, Command: &daisyv1.ControlRequest_Begin{Begin: beginToProto(pass.Begin{Tokens: []token.ID{1}, Sampling: sample.Params{LogitBias: map[token.ID]float32{1: 2}}})}},
	} {
		data, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &daisyv1.ControlRequest{}
		if proto.Unmarshal(data, r) != nil {
			return
		}
		if load, err := loadFromProto(r.GetLoad()); err == nil {
			if load.Layers.First < 0 || load.Layers.Last < load.Layers.First || load.Context < 0 || load.Parallel < 0 || load.Bytes < 0 {
				t.Errorf("believed %+v", load)
			}
		}
		if b, err := beginFromProto(r.GetBegin()); err == nil {
			if b.Keep < 0 || b.Prompt < 0 || b.Sampling.TopK < 0 || len(b.Sampling.LogitBias) > maxBias {
				t.Errorf("believed %+v", b)
			}
		}
	})
}
