package cluster

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// gossip is the side of a Port that memberlist sends and receives through. Its Shutdown cuts what memberlist has open,
// so that nothing waits for a peer that does not answer; the Port itself lives on.
type gossip struct {
	udp       *net.UDPConn
	advertise netip.AddrPort // set before memberlist starts
	packets   chan *memberlist.Packet
	streams   chan net.Conn
	ctx       context.Context // ends with Shutdown
	shutdown  context.CancelFunc
	talks     context.Context // ends with hangUp, or with ctx
	endTalks  context.CancelFunc

	mu   sync.Mutex
	open map[*stream]struct{}
}

var _ memberlist.NodeAwareTransport = (*gossip)(nil)

func newGossip(udp *net.UDPConn) *gossip {
	g := &gossip{
		udp:     udp,
		packets: make(chan *memberlist.Packet),
		streams: make(chan net.Conn),
		open:    make(map[*stream]struct{}),
	}
	g.ctx, g.shutdown = context.WithCancel(context.Background())
	g.talks, g.endTalks = context.WithCancel(g.ctx)
	return g
}

// A stream is a connection that memberlist has open.
type stream struct {
	net.Conn
	gossip *gossip
}

func (s *stream) Close() error {
	s.gossip.mu.Lock()
	delete(s.gossip.open, s)
	s.gossip.mu.Unlock()
	return s.Conn.Close()
}

// track takes a connection into those that hangUp and Shutdown cut.
func (g *gossip) track(c net.Conn, limit int) (*stream, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.talks.Err() != nil || limit > 0 && len(g.open) >= limit {
		_ = c.Close()
		return nil, false
	}
	s := &stream{Conn: c, gossip: g}
	g.open[s] = struct{}{}
	return s, true
}

// stream hands over a connection that a peer has opened.
func (g *gossip) stream(c net.Conn, portClosed <-chan struct{}) {
	s, ok := g.track(c, maxStreams)
	if !ok {
		return
	}
	select {
	case g.streams <- s:
	case <-g.ctx.Done():
		_ = s.Close()
	case <-portClosed:
		_ = s.Close()
	}
}

// packet hands over a datagram.
func (g *gossip) packet(b []byte, from net.Addr, portClosed <-chan struct{}) {
	select {
	case g.packets <- &memberlist.Packet{Buf: b, From: from, Timestamp: time.Now()}:
	case <-g.ctx.Done():
	case <-portClosed:
	}
}

func (g *gossip) PacketCh() <-chan *memberlist.Packet { return g.packets }

func (g *gossip) StreamCh() <-chan net.Conn { return g.streams }

func (g *gossip) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return g.advertise.Addr().AsSlice(), int(g.advertise.Port()), nil
}

func (g *gossip) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, err
	}
	if g.ctx.Err() != nil {
		return time.Time{}, net.ErrClosed
	}
	_, err = g.udp.WriteToUDPAddrPort(b, to)
	return time.Now(), err
}

func (g *gossip) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return g.WriteTo(b, a.Addr)
}

func (g *gossip) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	c, err := dialer.DialContext(g.talks, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s, ok := g.track(c, 0)
	if !ok {
		return nil, net.ErrClosed
	}
	return s, nil
}

func (g *gossip) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return g.DialTimeout(a.Addr, timeout)
}

// hangUp cuts all connections and makes no more. Datagrams still go out: the word that this process leaves is one.
func (g *gossip) hangUp() {
	g.endTalks()
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range g.open {
		_ = s.Conn.Close()
	}
}

func (g *gossip) Shutdown() error {
	g.shutdown()
	g.hangUp()
	return nil
}
