package rpc

import (
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"
	"unsafe"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/daisy-llm/daisy/pass"
	daisyv1 "github.com/daisy-llm/daisy/proto/daisy/v1"
)

// castagnoli is CRC-32C, for which processors have an instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// asBytes is the little-endian form of values, which on every machine that Daisy runs on is how they lie in memory.
func asBytes(values []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), len(values)*4)
}

// loan lends values to gRPC, frame by frame, and returns them to their pool when the last frame is written.
type loan struct {
	pool   *pass.RowPool
	values []float32
	frames atomic.Int32 // not yet freed
}

// Get is part of gRPC's buffer pool; a loan has nothing to give.
func (l *loan) Get(n int) *[]byte { b := make([]byte, n); return &b }

// Put is called once for every frame that gRPC frees.
func (l *loan) Put(*[]byte) {
	if l.frames.Add(-1) == 0 {
		l.pool.Put(l.values)
	}
}

// sender is the sending half of a stream of frames.
type sender interface{ SendMsg(m any) error }

// sendFrames sends values in frames of at most pass.MaxFrameBytes, the header in the first. message builds a frame's
// message; header tells it whether it is the first. The values are the pool's afterwards, once gRPC is done with them.
func sendFrames(to sender, pool *pass.RowPool, values []float32, message func(header bool, crc uint32) proto.Message) error {
	data := asBytes(values)
	l := &loan{pool: pool, values: values}
	count := (len(data) + pass.MaxFrameBytes - 1) / pass.MaxFrameBytes
	l.frames.Store(int32(count))
	for i := range max(1, count) {
		part := data[i*pass.MaxFrameBytes : min((i+1)*pass.MaxFrameBytes, len(data))]
		f := &frame{message: message(i == 0, crc32.Checksum(part, castagnoli))}
		if len(part) > 0 {
			f.payload = mem.NewBuffer(&part, l)
		}
		if err := to.SendMsg(f); err != nil {
			return err
		}
	}
	return nil
}

func sendPass(to sender, pool *pass.RowPool, p *pass.Pass) error {
	return sendFrames(to, pool, p.Rows, func(header bool, crc uint32) proto.Message {
		m := &daisyv1.ForwardRequest{Crc32C: crc}
		if header {
			m.Header = passToProto(p)
		}
		return m
	})
}

func sendResult(to sender, pool *pass.RowPool, r *pass.Result) error {
	header, count := resultToProto(r)
	values := pool.Get(count)[:0]
	for i := range r.Outputs {
		values = append(append(values, r.Outputs[i].Logits...), r.Outputs[i].Hidden...)
	}
	return sendFrames(to, pool, values, func(first bool, crc uint32) proto.Message {
		m := &daisyv1.ResultsResponse{Crc32C: crc}
		if first {
			m.Header = header
		}
		return m
	})
}

// receiver is the receiving half of a stream of frames.
type receiver interface{ RecvMsg(m any) error }

// collector puts the frames of one item, a pass or a result, together again.
type collector struct {
	pool   *pass.RowPool
	limit  int64     // bytes of rows that one item may have
	values []float32 // of the item in hand; nil between items
	filled int       // bytes of values
	header []byte    // of the frame in hand: one buffer for all
}

// begin makes place for the bytes that an item's header announces.
func (c *collector) begin(bytes uint64) error {
	if c.values != nil {
		return fmt.Errorf("an item begins when %d bytes of the one before are missing", len(c.values)*4-c.filled)
	}
	if bytes > uint64(c.limit) || bytes%4 != 0 {
		return fmt.Errorf("an item of %d bytes of rows: at most %d are accepted, in fours", bytes, c.limit)
	}
	c.values, c.filled = c.pool.Get(int(bytes/4)), 0
	return nil
}

func (c *collector) place(n int) ([]byte, error) {
	if n > len(c.values)*4-c.filled {
		return nil, fmt.Errorf("a payload of %d bytes where %d are missing", n, len(c.values)*4-c.filled)
	}
	return asBytes(c.values)[c.filled : c.filled+n], nil
}

// take checks a payload that lies in its place, and reports whether the item is complete.
func (c *collector) take(payload []byte, crc uint32) (complete bool, err error) {
	if got := crc32.Checksum(payload, castagnoli); got != crc {
		return false, fmt.Errorf("%w: a payload of %d bytes has CRC-32C %08x, its frame says %08x", errCorrupt, len(payload), got, crc)
	}
	if len(payload) == 0 && c.filled < len(c.values)*4 {
		return false, fmt.Errorf("a frame without payload where %d bytes are missing", len(c.values)*4-c.filled)
	}
	c.filled += len(payload)
	return c.filled == len(c.values)*4, nil
}

// finish hands the complete item's values over.
func (c *collector) finish() []float32 {
	v := c.values
	c.values = nil
	return v
}

// framed is a message of a stream of frames, with H the type of its header.
type framed[H any] interface {
	proto.Message
	GetHeader() H
	GetCrc32C() uint32
}

// announced is the header of an item.
type announced interface {
	comparable
	GetBytes() uint64
}

// receiveFrames reads the frames of the next item: its header and its values.
func receiveFrames[M framed[H], H announced](from receiver, c *collector, message func() M) (H, []float32, error) {
	var header, none H
	for {
		m := message()
		opened := false
		open := func() error {
			opened = true
			if (header == none) == (m.GetHeader() == none) {
				return errors.New("an item's first frame has its header, and no other frame has one")
			}
			if header != none {
				return nil
			}
			header = m.GetHeader()
			return c.begin(header.GetBytes())
		}
		f := &frame{message: m, header: c.header, room: func(n int) ([]byte, error) {
			if err := open(); err != nil {
				return nil, err
			}
			return c.place(n)
		}}
		if err := from.RecvMsg(f); err != nil {
			return none, nil, err
		}
		c.header = f.header
		if !opened { // a frame without payload
			if err := open(); err != nil {
				return none, nil, err
			}
		}
		complete, err := c.take(f.received, m.GetCrc32C())
		if err != nil {
			return none, nil, err
		}
		if complete {
			return header, c.finish(), nil
		}
	}
}

func receivePass(from receiver, c *collector) (*pass.Pass, error) {
	header, rows, err := receiveFrames(from, c, func() *daisyv1.ForwardRequest { return &daisyv1.ForwardRequest{} })
	if err != nil {
		return nil, err
	}
	p, err := passFromProto(header)
	if err != nil {
		return nil, err
	}
	p.Rows = rows
	return p, nil
}

func receiveResult(from receiver, c *collector) (*pass.Result, error) {
	header, values, err := receiveFrames(from, c, func() *daisyv1.ResultsResponse { return &daisyv1.ResultsResponse{} })
	if err != nil {
		return nil, err
	}
	return resultFromProto(header, values) // keeps the values: they never return to the pool
}
