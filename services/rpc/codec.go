package rpc

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/daisy-llm/daisy/pass"
)

// payloadField is the number of the bytes field `payload` in every message that carries rows. It is the last field, and
// so the bytes can go out, and come in, without a copy through protobuf; on the wire they are ordinary protobuf.
const payloadField = 15

// maxMessageBytes bounds what a receiver accepts: a full payload and a header of as much.
const maxMessageBytes = 2 * pass.MaxFrameBytes

// frame is a message whose payload stays outside it.
type frame struct {
	message proto.Message // without payload

	// To send: the payload, which gRPC frees once it is written.
	payload mem.Buffer

	// To receive: header is what message is unmarshalled from. When a payload of n bytes follows, room is asked where to
	// put it; message is complete by then. received is that place, once filled.
	header   []byte
	room     func(n int) ([]byte, error)
	received []byte
}

// codec encodes frames as described, and everything else as protobuf always is. It is given to servers and clients
// directly, so that nothing is registered globally.
type codec struct{ plain encoding.CodecV2 }

func newCodec() codec { return codec{plain: encoding.GetCodecV2("proto")} }

// Name is protobuf's: a frame is a protobuf message, whoever looks at it.
func (codec) Name() string { return "proto" }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return c.plain.Marshal(v)
	}
	header, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, 256), f.message)
	if err != nil {
		return nil, err
	}
	if f.payload == nil {
		return mem.BufferSlice{mem.SliceBuffer(header)}, nil
	}
	header = protowire.AppendTag(header, payloadField, protowire.BytesType)
	header = protowire.AppendVarint(header, uint64(f.payload.Len()))
	return mem.BufferSlice{mem.SliceBuffer(header), f.payload}, nil
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return c.plain.Unmarshal(data, v)
	}
	if data.Len() > maxMessageBytes {
		return fmt.Errorf("message of %d bytes, at most %d are accepted", data.Len(), maxMessageBytes)
	}
	r := data.Reader()
	defer r.Close()
	f.header, f.received = f.header[:0], nil
	for r.Remaining() > 0 {
		start := len(f.header)
		tag, err := f.varint(r)
		if err != nil {
			return err
		}
		number, kind := protowire.DecodeTag(tag)
		if number == payloadField && kind == protowire.BytesType {
			n, err := f.varint(r)
			if err != nil {
				return err
			}
			f.header = f.header[:start]
			return f.readPayload(r, n)
		}
		if err := f.copyField(r, kind); err != nil {
			return err
		}
	}
	return proto.Unmarshal(f.header, f.message)
}

// readPayload reads the last n bytes of a message to the place that room gives.
func (f *frame) readPayload(r *mem.Reader, n uint64) error {
	if n != uint64(r.Remaining()) || n > pass.MaxFrameBytes {
		return fmt.Errorf("payload of %d bytes: it must be the last field, and at most %d bytes", n, pass.MaxFrameBytes)
	}
	if err := proto.Unmarshal(f.header, f.message); err != nil {
		return err
	}
	place, err := f.room(int(n))
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(r, place); err != nil {
		return err
	}
	f.received = place
	return nil
}

// varint reads a varint and keeps its bytes in the header.
func (f *frame) varint(r *mem.Reader) (uint64, error) {
	start := len(f.header)
	for range 10 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, io.ErrUnexpectedEOF
		}
		f.header = append(f.header, b)
		if b < 0x80 {
			v, n := protowire.ConsumeVarint(f.header[start:])
			if n < 0 {
				return 0, protowire.ParseError(n)
			}
			return v, nil
		}
	}
	return 0, errors.New("varint of more than ten bytes")
}

// copyField copies a field's value into the header.
func (f *frame) copyField(r *mem.Reader, kind protowire.Type) error {
	n := 0
	switch kind {
	case protowire.VarintType:
		_, err := f.varint(r)
		return err
	case protowire.Fixed32Type:
		n = 4
	case protowire.Fixed64Type:
		n = 8
	case protowire.BytesType:
		v, err := f.varint(r)
		if err != nil {
			return err
		}
		if v > uint64(r.Remaining()) {
			return io.ErrUnexpectedEOF
		}
		n = int(v)
	default:
		return fmt.Errorf("wire type %d is not used here", kind)
	}
	if n > r.Remaining() {
		return io.ErrUnexpectedEOF
	}
	start := len(f.header)
	f.header = append(f.header, make([]byte, n)...)
	_, err := io.ReadFull(r, f.header[start:])
	return err
}
