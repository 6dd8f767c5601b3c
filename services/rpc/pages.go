package rpc

import (
	"github.com/daisy-llm/daisy/pass"
	daisyv1 "github.com/daisy-llm/daisy/proto/daisy/v1"
)

func copyToProto(c pass.Copy) *daisyv1.Copy {
	return &daisyv1.Copy{
		Sequence: uint64(c.Sequence), Epoch: uint32(c.Epoch), First: uint32(c.Layers.First), Last: uint32(c.Layers.Last),
		Shard: c.Shard, Address: c.Address, To: uint32(c.To),
	}
}
