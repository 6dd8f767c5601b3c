package weights

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/daisy-llm/daisy/pass"
)

// bringList gets the list that a Load names, from a coordinator or else from a shard.
func (c *Cache) bringList(ctx context.Context, load pass.Load) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.limits.stall, fmt.Errorf("nobody has given it within %v", c.limits.stall))
	defer cancel()
	var last error
	for {
		offers, changed := c.offers()
		for _, o := range offers {
			encoded, err := c.askList(ctx, load, o.name, o.from)
			if err == nil {
				return encoded, nil
			}
			last = fmt.Errorf("%s: %w", o.name, err)
		}
		if encoded := c.askPeersList(ctx, load); encoded != nil {
			return encoded, nil
		}
		select {
		case <-changed:
		case <-time.After(c.limits.retry):
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), last)
		}
	}
}

// askPeersList asks some shards at once; nil: none has it.
func (c *Cache) askPeersList(ctx context.Context, load pass.Load) (encoded []byte) {
	ctx, stop := context.WithTimeout(ctx, c.limits.retryMax)
	defer stop()
	peers := c.cfg.Peers()
	peers = peers[:min(len(peers), maxPeers)]
	answers := make(chan []byte)
	for _, p := range peers {
		go func() { answers <- c.askPeerList(ctx, load, p) }()
	}
	for range peers {
		if answer := <-answers; answer != nil {
			encoded = answer
			stop()
		}
	}
	return encoded
}

func (c *Cache) askPeerList(ctx context.Context, load pass.Load, p Peer) []byte {
	remote, err := c.cfg.Dial(p)
	if err != nil {
		return nil
	}
	defer remote.Close()
	encoded, err := c.askList(ctx, load, peerName(p), remote)
	if err != nil {
		return nil
	}
	return encoded
}

// askList asks one source, and believes nothing that does not fit the root.
func (c *Cache) askList(ctx context.Context, load pass.Load, name string, from pass.Weights) ([]byte, error) {
	if c.distrusts(name) {
		return nil, errors.New("it gave wrong bytes before")
	}
	ctx, cancel := context.WithTimeout(ctx, c.limits.ask)
	defer cancel()
	encoded, err := from.List(ctx, load.SHA256, load.Root)
	if err == nil && rootOf(encoded) != load.Root {
		c.distrust(name)
		c.cfg.Log.Warn("a source gave a wrong list of chunks: it is asked for nothing for a while", "source", name, "model", load.Model)
		err = errors.New("its list does not fit the root")
	}
	return encoded, err
}
