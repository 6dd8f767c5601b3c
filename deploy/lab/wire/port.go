//go:build linux

package wire

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	onTheWay = 64 << 20              // bytes that may be under way to one machine: more is dropped
	early    = 50 * time.Microsecond // a packet whose line is free so soon is not worth an alarm
)

// port is one machine's end.
type port struct {
	device Device

	mu     sync.Mutex
	alarm  *alarm   // rings when the first parcel is due
	lines  []line   // from each port
	queue  []parcel // ordered by when they are due, first in first out
	next   *parcel  // has left the queue, and passes the line
	queued int      // bytes in both
	pace   pace
	count  Count
}

// parcel is a packet under way.
type parcel struct {
	due    time.Duration
	packet []byte
}

// take sends a packet on its way to this port. What is due at once does not wait for another goroutine: that would cost more than all the rest.
func (p *port) take(from int, packet []byte, clock func() time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := clock()
	due, copies := p.lines[from].take(now)
	if copies == 0 {
		p.count.Dropped++
	}
	for _, due := range due[:copies] {
		if p.next == nil && len(p.queue) == 0 && due <= now && p.pace.rate == 0 {
			p.writeLocked(packet)
			continue
		}
		if p.queued+len(packet) > onTheWay {
			p.count.Dropped++
			continue
		}
		p.queued += len(packet)
		// Behind all that are due at the same time.
		at, _ := slices.BinarySearchFunc(p.queue, due+1, func(other parcel, due time.Duration) int { return cmp.Compare(other.due, due) })
		p.queue = slices.Insert(p.queue, at, parcel{due, slices.Clone(packet)})
		p.passLocked(now)
	}
}

// deliver writes what is due until the context ends.
func (p *port) deliver(ctx context.Context, clock func() time.Duration) error {
	for {
		err := p.alarm.wait()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for the next packet: %w", err)
		}
		p.mu.Lock()
		p.passLocked(clock())
		p.mu.Unlock()
	}
}

// passLocked writes what is due, and sets the alarm for what is not.
func (p *port) passLocked(now time.Duration) {
	for {
		if p.next == nil && len(p.queue) > 0 && p.queue[0].due <= now {
			first := p.queue[0]
			p.queue[0] = parcel{}
			p.queue = p.queue[1:]
			passed, ok := p.pace.admit(first.due, len(first.packet))
			if !ok {
				p.queued -= len(first.packet)
				p.count.Dropped++
				continue
			}
			p.next = &parcel{passed, first.packet}
		}
		switch {
		case p.next != nil && p.next.due <= now+early:
			p.queued -= len(p.next.packet)
			p.writeLocked(p.next.packet)
			p.next = nil
		case p.next != nil:
			p.alarm.set(p.next.due - now)
			return
		case len(p.queue) > 0:
			p.alarm.set(p.queue[0].due - now)
			return
		default:
			return
		}
	}
}

// writeLocked hands a packet to the machine. One that its kernel refuses, because the device is down or the packet makes no sense to it, is lost.
func (p *port) writeLocked(packet []byte) {
	if _, err := p.device.Write(packet); err != nil {
		p.count.Dropped++
		return
	}
	p.count.Packets++
	p.count.Bytes += int64(len(packet) - headerSize)
}

func (p *port) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alarm.close()
	p.queue, p.next, p.queued = nil, nil, 0
}
