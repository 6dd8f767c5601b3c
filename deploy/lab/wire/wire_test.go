//go:build linux

package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a wire whose machines are the test: pairs of sockets stand for their devices.
type bench struct {
	*Wire
	ends []*os.File
}

func address(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }

func newBench(t *testing.T, rates ...int64) *bench {
	t.Helper()
	b := &bench{}
	var ports []Port
	for i, rate := range rates {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours, its := os.NewFile(uintptr(pair[0]), "end"), os.NewFile(uintptr(pair[1]), "device")
		t.Cleanup(func() { ours.Close(); its.Close() })
		b.ends = append(b.ends, ours)
		ports = append(ports, Port{Addr: address(i), Device: its, Rate: rate})
	}
	w, err := New(1, ports...)
	if err != nil {
		t.Fatal(err)
	}
	b.Wire = w
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return b
}

// packet goes to a machine and has a number.
func packet(to, number, size int) []byte {
	p := make([]byte, headerSize+size)
	p[headerSize] = 4 << 4
	ip := address(to).As4()
	copy(p[headerSize+16:], ip[:])
	binary.LittleEndian.PutUint32(p[headerSize+20:], uint32(number))
	return p
}

func (b *bench) send(t *testing.T, from int, p []byte) {
	t.Helper()
	if _, err := b.ends[from].Write(p); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) receive(t *testing.T, at int) (number int) {
	t.Helper()
	p := make([]byte, packetSize)
	b.ends[at].SetReadDeadline(time.Now().Add(time.Minute))
	n, err := b.ends[at].Read(p)
	if err != nil {
		t.Fatalf("machine %d waits for a packet: %v", at, err)
	}
	if want := packet(at, int(binary.LittleEndian.Uint32(p[headerSize+20:])), n-headerSize); !bytes.Equal(p[:n], want) {
		t.Fatalf("machine %d got a packet of %d bytes that nobody sent", at, n)
	}
	return int(binary.LittleEndian.Uint32(p[headerSize+20:]))
}

func change(t *testing.T, w *Wire, from, to int, f func(*Link)) {
	t.Helper()
	if err := w.Change(from, to, f); err != nil {
		t.Fatal(err)
	}
}

func TestPacketsReachTheirAddressInOrder(t *testing.T) {
	b := newBench(t, 0, 0, 0)
	change(t, b.Wire, 0, 2, func(l *Link) { l.Delay = 2 * ms })
	for i := range 100 {
		b.send(t, 0, packet(1, i, 24+i))
		b.send(t, 0, packet(2, 1000+i, 24+i))
		if i == 50 {
			change(t, b.Wire, 0, 2, func(l *Link) { l.Delay = 0 })
		}
	}
	for i := range 100 {
		if got := b.receive(t, 1); got != i {
			t.Fatalf("machine 1 got packet %d, want %d", got, i)
		}
		if got := b.receive(t, 2); got != 1000+i {
			t.Fatalf("machine 2 got packet %d, want %d", got, 1000+i)
		}
	}
}

func TestPacketsTakeTheirTime(t *testing.T) {
	b := newBench(t, 0, 8e6, 0)
	change(t, b.Wire, 0, 2, func(l *Link) { l.Delay = 30 * ms })
	began := time.Now()
	b.send(t, 0, packet(2, 0, 24))
	b.receive(t, 2)
	if took := time.Since(began); took < 30*ms {
		t.Errorf("a link of 30 ms took %v", took)
	}
	began = time.Now()
	const size, count = 5000, 8 // less than waits for a line
	for i := range count {
		b.send(t, 2, packet(1, i, size))
	}
	for i := range count {
		if got := b.receive(t, 1); got != i {
			t.Fatalf("got packet %d, want %d", got, i)
		}
	}
	if took := time.Since(began); took < size*count*time.Microsecond-early {
		t.Errorf("%d bytes took %v at a byte a microsecond", size*count, took)
	}
}

func TestWhatGoesNowhereIsDropped(t *testing.T) {
	b := newBench(t, 0, 0)
	six := packet(1, 1, 60)
	six[headerSize] = 6 << 4
	for _, p := range [][]byte{{1}, packet(9, 1, 24), six, packet(1, 1, 24)[:headerSize+19]} {
		b.send(t, 0, p)
	}
	change(t, b.Wire, 0, 1, func(l *Link) { l.Cut = true })
	b.send(t, 0, packet(1, 2, 24))
	for b.Count(1).Dropped == 0 { // it has come through
		time.Sleep(ms)
	}
	change(t, b.Wire, 0, 1, func(l *Link) { *l = Link{Duplicate: 1} })
	b.send(t, 0, packet(1, 3, 24))
	for range 2 {
		if got := b.receive(t, 1); got != 3 {
			t.Errorf("got packet %d, want 3 twice", got)
		}
	}
	if got := b.Count(1); got != (Count{Packets: 2, Bytes: 48, Dropped: 1}) {
		t.Errorf("counted %+v", got)
	}
}

func TestNoMoreIsOnItsWayThanMayBe(t *testing.T) {
	w, err := New(1, Port{Addr: address(0)}, Port{Addr: address(1)})
	if err != nil {
		t.Fatal(err)
	}
	change(t, w, 0, 1, func(l *Link) { l.Delay = time.Second })
	p := w.ports[1]
	defer p.close()
	for range onTheWay/packetSize + 10 {
		p.take(0, make([]byte, packetSize), func() time.Duration { return 0 })
	}
	if p.queued > onTheWay || p.count.Dropped != 10 {
		t.Errorf("%d bytes are on their way, %d packets dropped", p.queued, p.count.Dropped)
	}
}

func TestPortsThatCannotBe(t *testing.T) {
	for name, ports := range map[string][]Port{
		"no address":    {{}},
		"IPv6":          {{Addr: netip.MustParseAddr("::1")}},
		"the same":      {{Addr: address(1)}, {Addr: address(1)}},
		"below zero":    {{Addr: address(1), Rate: -1}},
		"no IPv4, 4in6": {{Addr: netip.MustParseAddr("::ffff:1.2.3.4")}},
	} {
		if _, err := New(1, ports...); err == nil {
			t.Errorf("%s: passes", name)
		}
	}
}
