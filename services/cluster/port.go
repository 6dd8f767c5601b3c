package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	sniffTimeout = 5 * time.Second // a client under load may take its time between connecting and speaking
	maxSniffed   = 256             // connections that may be waited for at once; one more, and the oldest is closed
	maxBacklog   = 64              // connections recognised and not yet accepted
	maxStreams   = 128             // gossip connections open at once
	portAttempts = 64              // to find a number that is free for TCP and UDP
)

// A Port is one number for TCP and UDP that carries gossip and everything else a process serves.
type Port struct {
	tcp    *net.TCPListener
	udp    *net.UDPConn
	gossip *gossip
	rest   *listener
	closed chan struct{} // closed once, by Close
	once   sync.Once

	patience time.Duration // for the first byte of a connection

	mu      sync.Mutex
	sniffed []*conn // oldest first
}

// Listen opens host:port. Port 0 is one that the system chooses. Nothing is accepted before Cluster.Run.
func Listen(hostport string) (*Port, error) {
	attempts := 1
	if _, port, err := net.SplitHostPort(hostport); err != nil {
		return nil, fmt.Errorf("listen on %q: give host:port", hostport)
	} else if port == "0" {
		attempts = portAttempts
	}
	var err error
	for range attempts {
		var p *Port
		if p, err = listen(hostport); err == nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("listen on %s: %w", hostport, whyNot(err))
}

// whyNot drops what net repeats of the address, and says what to do about a port that is taken.
func whyNot(err error) error {
	var op *net.OpError
	if !errors.As(err, &op) {
		return err
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("another process has the %s port: end it, or choose another port: %w", strings.ToUpper(op.Net), op.Err)
	}
	return op.Err
}

func listen(hostport string) (*Port, error) {
	l, err := net.Listen("tcp", hostport)
	if err != nil {
		return nil, err
	}
	tcp := l.(*net.TCPListener)
	bound := tcp.Addr().(*net.TCPAddr)
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: bound.IP, Port: bound.Port, Zone: bound.Zone})
	if err != nil {
		_ = tcp.Close()
		return nil, err
	}
	p := &Port{tcp: tcp, udp: udp, closed: make(chan struct{}), patience: sniffTimeout}
	p.gossip = newGossip(udp)
	p.rest = &listener{addr: bound, conns: make(chan net.Conn, maxBacklog), closed: make(chan struct{})}
	return p, nil
}

// Addr is the address the port is bound to.
func (p *Port) Addr() net.Addr { return p.tcp.Addr() }

// bound is Addr in another form.
func (p *Port) bound() netip.AddrPort {
	a := p.tcp.Addr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Listener gives the connections that are not gossip, always the same one. Closing it leaves gossip alone.
func (p *Port) Listener() net.Listener { return p.rest }

// Close ends the port, and with it the Run of the cluster that uses it, without a word to the others. Connections that
// were accepted live on.
func (p *Port) Close() error {
	p.once.Do(func() {
		close(p.closed)
		_ = p.rest.Close()
		_ = p.tcp.Close()
		_ = p.udp.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range p.sniffed {
			_ = c.Close()
		}
	})
	return nil
}

// serve accepts until Close, and returns when everything it has started has ended.
func (p *Port) serve() {
	var wg sync.WaitGroup
	wg.Go(p.receive)
	for {
		c, err := p.tcp.AcceptTCP()
		if err == nil {
			waiting := &conn{TCPConn: c}
			p.await(waiting)
			wg.Go(func() { p.sniff(waiting) })
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			break
		}
		p.pause(50 * time.Millisecond) // out of descriptors, most likely: they come back when other connections end
	}
	wg.Wait()
}

// pause keeps a loop over errors from spinning.
func (p *Port) pause(d time.Duration) {
	select {
	case <-p.closed:
	case <-time.After(d):
	}
}

// receive hands datagrams to gossip.
func (p *Port) receive() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := p.udp.ReadFromUDP(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // some systems report here that an earlier datagram found nobody
			p.pause(10 * time.Millisecond)
		case n > 0:
			p.gossip.packet(slices.Clone(buf[:n]), from, p.closed)
		}
	}
}

// sniff waits for a connection's first byte and hands it to whom it is for.
func (p *Port) sniff(c *conn) {
	defer p.forget(c)
	_ = c.SetReadDeadline(time.Now().Add(p.patience))
	if _, err := io.ReadFull(c.TCPConn, c.first[:]); err != nil {
		_ = c.Close()
		return
	}
	c.unread = true
	_ = c.SetReadDeadline(time.Time{})
	switch {
	case isGossip(c.first[0]):
		p.gossip.stream(c, p.closed)
	case isServed(c.first[0]):
		p.rest.deliver(c, p.closed)
	default:
		_ = c.Close()
	}
}

// isGossip: memberlist's streams begin with a message type, a few numbers from 0, or with 244 before a label.
func isGossip(first byte) bool { return first <= 20 || first == 244 }

// isServed: HTTP begins with a method or, for HTTP/2, PRI; TLS with record type 22.
func isServed(first byte) bool { return first >= 'A' && first <= 'Z' || first == 22 }

// await makes room for a connection: who connects and says nothing must not keep the others out.
func (p *Port) await(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.closed:
		_ = c.Close()
	default:
	}
	if len(p.sniffed) >= maxSniffed {
		_ = p.sniffed[0].Close()
		p.sniffed = slices.Delete(p.sniffed, 0, 1)
	}
	p.sniffed = append(p.sniffed, c)
}

func (p *Port) forget(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.sniffed, c); i >= 0 {
		p.sniffed = slices.Delete(p.sniffed, i, i+1)
	}
}

// A conn gives back the byte that was read to recognise it.
type conn struct {
	*net.TCPConn
	first  [1]byte
	unread bool // only Read and WriteTo look, one at a time as with every connection
}

func (c *conn) Read(b []byte) (int, error) {
	if c.unread && len(b) > 0 {
		c.unread = false
		return copy(b, c.first[:]), nil
	}
	return c.TCPConn.Read(b)
}

// WriteTo keeps the embedded one from passing over the first byte.
func (c *conn) WriteTo(w io.Writer) (int64, error) {
	if c.unread {
		c.unread = false
		if n, err := w.Write(c.first[:]); err != nil {
			return int64(n), err
		}
		n, err := c.TCPConn.WriteTo(w)
		return n + 1, err
	}
	return c.TCPConn.WriteTo(w)
}

// A listener gives out the connections of a Port that are not gossip.
type listener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{} // closed once, by Close
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
	default:
		select {
		case c := <-l.conns:
			return c, nil
		case <-l.closed:
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
}

// Close refuses what is still to come, and what was recognised but not accepted.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	for {
		select {
		case c := <-l.conns:
			_ = c.Close()
		default:
			return nil
		}
	}
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) deliver(c net.Conn, portClosed <-chan struct{}) {
	select {
	case <-l.closed:
		_ = c.Close()
		return
	default:
	}
	select {
	case l.conns <- c:
		select {
		case <-l.closed:
			_ = l.Close() // it may have been put there behind the back of the first Close
		default:
		}
	case <-l.closed:
		_ = c.Close()
	case <-portClosed:
		_ = c.Close()
	}
}
