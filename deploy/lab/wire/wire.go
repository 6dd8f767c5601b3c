//go:build linux

package wire

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	headerSize = 10                 // of the virtio header before each packet
	packetSize = headerSize + 1<<16 // the largest
)

// Device is a machine's end of the wire: each Read and Write is one packet.
type Device interface {
	io.ReadWriter
	SetReadDeadline(time.Time) error
}

// Port is where a machine is plugged in.
type Port struct {
	Addr   netip.Addr // packets to this address go here
	Device Device
	Rate   int64 // bits a second that it can receive; 0 means any
}

// Count is what came out of the wire at one port, or did not.
type Count struct {
	Packets int64 `json:"packets"`
	Bytes   int64 `json:"bytes"`
	Dropped int64 `json:"dropped"`
}

// Wire joins its ports. All of it may be used by many goroutines.
type Wire struct {
	ports []*port
	byIP  map[netip.Addr]*port
	began time.Time
}

// New makes a wire whose links are perfect. The seed decides which packets faults will strike.
func New(seed uint64, ports ...Port) (*Wire, error) {
	w := &Wire{byIP: map[netip.Addr]*port{}, began: time.Now()}
	for to, p := range ports {
		if !p.Addr.Is4() || w.byIP[p.Addr] != nil {
			return nil, fmt.Errorf("port %d of the wire: %v is no IPv4 address of its own", to, p.Addr)
		}
		if p.Rate < 0 {
			return nil, fmt.Errorf("port %d of the wire: a rate of %d bits a second", to, p.Rate)
		}
		alarm, err := newAlarm()
		if err != nil {
			return nil, err
		}
		made := &port{device: p.Device, alarm: alarm, pace: pace{rate: p.Rate}}
		for from := range ports {
			made.lines = append(made.lines, line{random: rand.New(rand.NewPCG(seed, uint64(from)<<32|uint64(to)))})
		}
		w.ports = append(w.ports, made)
		w.byIP[p.Addr] = made
	}
	return w, nil
}

// Run carries packets until the context ends, which is no error, or a device fails. It runs once.
func (w *Wire) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for from, p := range w.ports {
		group.Go(func() error { return w.receive(ctx, from) })
		group.Go(func() error { return p.deliver(ctx, w.now) })
	}
	group.Go(func() error {
		<-ctx.Done()
		for _, p := range w.ports {
			p.device.SetReadDeadline(time.Unix(1, 0)) // wakes receive
			p.alarm.cancel()
		}
		return nil
	})
	err := group.Wait()
	for _, p := range w.ports {
		p.close()
	}
	return err
}

// Change changes the link from one port to another. What is under way arrives as it would have.
func (w *Wire) Change(from, to int, change func(*Link)) error {
	p := w.ports[to]
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := p.lines[from].Link
	change(&changed)
	if err := changed.Validate(); err != nil {
		return err
	}
	p.lines[from].Link = changed
	return nil
}

// Link is the link from one port to another as it is now.
func (w *Wire) Link(from, to int) Link {
	p := w.ports[to]
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines[from].Link
}

// Count is what has come to a port so far.
func (w *Wire) Count(to int) Count {
	p := w.ports[to]
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

func (w *Wire) now() time.Duration { return time.Since(w.began) }

// receive takes what one machine sends.
func (w *Wire) receive(ctx context.Context, from int) error {
	packet := make([]byte, packetSize)
	for {
		n, err := w.ports[from].device.Read(packet)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from port %d of the wire: %w", from, err)
		}
		if to := w.byIP[destination(packet[:n])]; to != nil {
			to.take(from, packet[:n], w.now)
		}
	}
}

// destination is the address that an IPv4 packet goes to; of anything else it is none.
func destination(packet []byte) netip.Addr {
	if len(packet) < headerSize+20 || packet[headerSize]>>4 != 4 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(packet[headerSize+16:]))
}
