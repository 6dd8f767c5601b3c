//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/daisy-llm/daisy/deploy/lab/wire"
)

const ms = time.Millisecond

// patience is for computers that have something else to do.
const patience = 3 * time.Minute

// talk is a conversation between two machines, by TCP and by UDP.
type talk struct {
	from, to *Machine
	stream   net.Conn
	packets  net.Conn
}

// converse has one machine echo what the other says.
func converse(t *testing.T, from, to *Machine) *talk {
	t.Helper()
	listener, err := to.Listen("tcp", net.JoinHostPort(to.Addr.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if conn, err := listener.Accept(); err == nil {
			defer conn.Close()
			io.Copy(conn, conn)
		}
	}()
	var echo net.PacketConn
	if err := to.Within(func() (err error) {
		echo, err = net.ListenPacket("udp", net.JoinHostPort(to.Addr.String(), "0"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	echoed := make(chan struct{})
	go func() {
		defer close(echoed)
		buffer := make([]byte, 1<<16)
		for {
			n, sender, err := echo.ReadFrom(buffer)
			if err != nil {
				return
			}
			echo.WriteTo(buffer[:n], sender)
		}
	}()
	c := &talk{from: from, to: to}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if c.stream, err = from.Dial(ctx, "tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if c.packets, err = from.Dial(ctx, "udp", echo.LocalAddr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.stream.Close()
		c.packets.Close()
		listener.Close()
		echo.Close()
		<-served
		<-echoed
	})
	return c
}

// roundTrip says a number and waits until it comes back.
func roundTrip(t *testing.T, conn net.Conn, number int) time.Duration {
	t.Helper()
	began := time.Now()
	say(t, conn, number)
	if !hears(t, conn, number, patience) {
		t.Fatalf("%v to %v: no answer", conn.LocalAddr(), conn.RemoteAddr())
	}
	return time.Since(began)
}

func say(t *testing.T, conn net.Conn, number int) {
	t.Helper()
	if err := binary.Write(conn, binary.BigEndian, uint64(number)); err != nil {
		t.Fatal(err)
	}
}

func hears(t *testing.T, conn net.Conn, want int, limit time.Duration) bool {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(limit))
	defer conn.SetReadDeadline(time.Time{})
	var got uint64
	err := binary.Read(conn, binary.BigEndian, &got)
	if err != nil && !os.IsTimeout(err) {
		t.Fatal(err)
	}
	if err == nil && got != uint64(want) {
		t.Fatalf("heard %d, want %d", got, want)
	}
	return err == nil
}

func change(t *testing.T, l *Lab, from, to []*Machine, f func(*wire.Link)) {
	t.Helper()
	if err := l.Change(from, to, f); err != nil {
		t.Fatal(err)
	}
}

func TestDelay(t *testing.T) {
	l := up(t, MachineConfig{Name: "a"}, MachineConfig{Name: "b"}, MachineConfig{Name: "c"})
	a, b, c := l.Machine("a"), l.Machine("b"), l.Machine("c")
	near, far := converse(t, a, b), converse(t, a, c)
	number := 0
	for _, delay := range []time.Duration{0, 5 * ms, 20 * ms, 50 * ms} {
		change(t, l, nil, []*Machine{c}, func(link *wire.Link) { link.Delay = delay })
		for _, conn := range []net.Conn{far.stream, far.packets} {
			number++
			if took := roundTrip(t, conn, number); took < 2*delay {
				t.Errorf("%s: there and back in %v, with a delay of %v each way", conn.RemoteAddr().Network(), took, delay)
			}
		}
		number++
		roundTrip(t, near.stream, number)
		if l.Link(a, b).Delay != 0 || l.Link(b, a).Delay != 0 || l.Link(a, c).Delay != delay || l.Link(c, a).Delay != delay {
			t.Errorf("links changed that were not to")
		}
	}
	if l.Change([]*Machine{a}, nil, func(link *wire.Link) { link.Delay = -1 }) == nil || l.Link(a, b).Delay != 0 {
		t.Error("a delay of less than nothing")
	}
}

// TestRate sends more than fits into buckets and buffers: it must take nearly as long as its bits do.
func TestRate(t *testing.T) {
	const rate = 20_000_000
	l := up(t, MachineConfig{Name: "slow", Rate: rate}, MachineConfig{Name: "fast"}, MachineConfig{Name: "other"})
	slow, fast := l.Machine("slow"), l.Machine("fast")
	for name, pair := range map[string][2]*Machine{"sent": {slow, fast}, "received": {fast, slow}} {
		const size = 1 << 20
		took := transfer(t, pair[0], pair[1], size)
		if least := time.Duration(size * 8 * int64(time.Second) / rate * 9 / 10); took < least {
			t.Errorf("%s: %d bytes in %v at %d bits a second, want at least %v", name, size, took, rate, least)
		}
	}
	t.Logf("without a limit, 64 MiB take %v", transfer(t, fast, l.Machine("other"), 64<<20))
}

// transfer sends bytes and waits until all have arrived.
func transfer(t *testing.T, from, to *Machine, size int) time.Duration {
	t.Helper()
	listener, err := to.Listen("tcp", net.JoinHostPort(to.Addr.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	received := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			defer conn.Close()
			var n int64
			if n, err = io.Copy(io.Discard, conn); err == nil && n != int64(size) {
				err = fmt.Errorf("%d bytes arrived of %d", n, size)
			}
		}
		received <- err
	}()
	began := time.Now()
	conn, err := from.Dial(context.Background(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := <-received; err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

func TestPartition(t *testing.T) {
	l := up(t, MachineConfig{Name: "a"}, MachineConfig{Name: "b"}, MachineConfig{Name: "c"}, MachineConfig{Name: "d"})
	a, b, c, d := l.Machine("a"), l.Machine("b"), l.Machine("c"), l.Machine("d")
	across, back, within, outside := converse(t, a, c), converse(t, d, b), converse(t, a, b), converse(t, d, c)
	number := 1
	for _, talk := range []*talk{across, back, within, outside} {
		roundTrip(t, talk.stream, number)
		roundTrip(t, talk.packets, number)
	}
	silent := func(talk *talk) {
		t.Helper()
		say(t, talk.packets, number)
		say(t, talk.stream, number)
		if hears(t, talk.packets, number, 100*ms) || hears(t, talk.stream, number, 100*ms) {
			t.Errorf("%s and %s still hear each other", talk.from.Name, talk.to.Name)
		}
	}
	heals := func(talk *talk) {
		t.Helper()
		if !hears(t, talk.stream, number, patience) { // TCP has kept what was said meanwhile
			t.Errorf("the stream from %s to %s did not come back", talk.from.Name, talk.to.Name)
		}
		roundTrip(t, talk.packets, number+1)
		roundTrip(t, talk.stream, number+1)
	}

	number = 10
	l.Partition([]*Machine{a, b}, []*Machine{c, d})
	silent(across)
	silent(back)
	roundTrip(t, within.stream, number)
	roundTrip(t, outside.packets, number)
	l.Heal()
	heals(across)
	heals(back)

	number = 20
	l.Partition([]*Machine{d}) // from all others
	silent(back)
	silent(outside)
	roundTrip(t, across.stream, number)
	roundTrip(t, within.packets, number)
	l.Heal()
	heals(back)
	heals(outside)

	number = 30
	l.Partition([]*Machine{a}, []*Machine{c}) // b and d reach everyone
	silent(across)
	roundTrip(t, within.stream, number)
	roundTrip(t, outside.stream, number)
	l.Heal()
	heals(across)
}

func TestFaults(t *testing.T) {
	l := up(t, MachineConfig{Name: "a"}, MachineConfig{Name: "b"})
	a, b := l.Machine("a"), l.Machine("b")
	c := converse(t, a, b)
	roundTrip(t, c.stream, 1)

	change(t, l, []*Machine{a}, []*Machine{b}, func(link *wire.Link) { link.Duplicate = 1 })
	say(t, c.packets, 2)
	for range 4 { // there twice, and each of them back twice
		if !hears(t, c.packets, 2, patience) {
			t.Fatal("a packet that was to be doubled came back less than four times")
		}
	}
	roundTrip(t, c.stream, 2) // TCP does not mind

	change(t, l, nil, nil, func(link *wire.Link) { *link = wire.Link{Loss: 1} })
	say(t, c.packets, 3)
	if hears(t, c.packets, 3, 100*ms) {
		t.Error("a packet that was to be lost came back")
	}

	change(t, l, nil, nil, func(link *wire.Link) { *link = wire.Link{Loss: 0.05, Duplicate: 0.1, Reorder: 0.2, Delay: ms} })
	for i := range 30 {
		roundTrip(t, c.stream, 4+i)
	}
	count := l.Received(b)
	if count.Packets == 0 || count.Dropped == 0 {
		t.Errorf("counted %+v", count)
	}
}
