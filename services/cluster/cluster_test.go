package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

// quick is a timing for tests that wait for something to happen; nobody is given up while they run.
var quick = Timing{Probe: 200 * time.Millisecond, Suspicion: 20 * time.Second, Gossip: 10 * time.Millisecond,
	Retry: 20 * time.Millisecond, Refresh: 200 * time.Millisecond}

// patience is how long a test waits for what must happen, on a machine under load.
const patience = 60 * time.Second

// A peer is a cluster that runs.
type peer struct {
	*Cluster
	t      *testing.T
	log    *logged
	watch  <-chan plan.Roster
	latest plan.Roster
	leave  context.CancelFunc
	ended  chan struct{}
	err    error // of Run, once ended is closed
}

func start(t *testing.T, config Config) *peer {
	t.Helper()
	if config.Port == nil {
		port, err := Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		config.Port = port
	}
	if config.Timing == (Timing{}) {
		config.Timing = quick
	}
	p := &peer{t: t, log: &logged{}, ended: make(chan struct{})}
	config.Log = slog.New(slog.NewTextHandler(p.log, nil))
	var err error
	if p.Cluster, err = New(config); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, p.leave = context.WithCancel(context.Background())
	p.watch = p.Watch(ctx)
	go func() {
		defer close(p.ended)
		p.err = p.Run(ctx)
	}()
	t.Cleanup(func() {
		p.leave()
		<-p.ended
	})
	return p
}

// await reads snapshots until one is as wanted.
func (p *peer) await(what string, want func(plan.Roster) bool) {
	p.t.Helper()
	deadline := time.After(patience)
	for !want(p.latest) {
		select {
		case p.latest = <-p.watch:
		case <-deadline:
			p.t.Fatalf("%s waits in vain for %s; it sees %v\n%s", p.name, what, names(p.Roster()), p.log)
		}
	}
}

func names(r plan.Roster) []string {
	var names []string
	for _, m := range r {
		names = append(names, m.Name)
	}
	return names
}

// has wants exactly these members.
func has(want ...string) func(plan.Roster) bool {
	return func(r plan.Roster) bool { return slices.Equal(names(r), want) }
}

// logged keeps what was logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (p *peer) awaitLog(want string) {
	p.t.Helper()
	deadline := time.After(patience)
	for !strings.Contains(p.log.String(), want) {
		select {
		case <-deadline:
			p.t.Fatalf("%s never logs %q:\n%s", p.name, want, p.log)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestEverybodyIsHeardOf(t *testing.T) {
	self := plan.Member{Name: "s1", Role: plan.Shard, PID: 4711, Cores: 8, Memory: 1 << 33, Speed: 12.5, Plan: 3, Protocol: 1, Numerics: 2, Version: "v0.1.0"}
	a := start(t, Config{Self: plan.Member{Name: "c0", Role: plan.Coordinator}})
	b := start(t, Config{Self: self, Join: []string{a.Address()}})
	a.await("s1", has("c0", "s1"))
	b.await("c0", has("c0", "s1"))
	self.Address = b.Address()
	for _, p := range []*peer{a, b} {
		if m, _ := p.latest.Find("s1"); m != self {
			t.Errorf("%s sees %+v, want %+v", p.name, m, self)
		}
	}

	t.Run("changes arrive", func(t *testing.T) {
		for n := range uint64(5) {
			if err := b.SetPlan(10 + n); err != nil {
				t.Fatal(err)
			}
			if err := b.SetState(plan.State(n % 4)); err != nil {
				t.Fatal(err)
			}
			a.await("the change", func(r plan.Roster) bool {
				m, _ := r.Find("s1")
				return m.Plan == 10+n && m.State == plan.State(n%4)
			})
		}
	})
	t.Run("what cannot be is refused", func(t *testing.T) {
		if err := b.Update(func(m *plan.Member) { m.Memory = -1 }); err == nil {
			t.Error("a negative memory was taken")
		}
		if err := b.Update(func(m *plan.Member) { m.Name, m.Role, m.Address = "x", plan.Coordinator, "y" }); err != nil {
			t.Error(err)
		}
		if m, _ := b.Roster().Find("s1"); m.Role != plan.Shard || m.Memory != self.Memory || m.Address != self.Address {
			t.Errorf("it is now %+v", m)
		}
	})
	t.Run("who leaves is gone at once", func(t *testing.T) {
		begin := time.Now()
		b.leave()
		a.await("s1 to go", has("c0"))
		<-b.ended
		if b.err != nil {
			t.Errorf("leaving: %v", b.err)
		}
		// Suspicion lasts 20 s here: only a word of farewell is faster.
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("leaving took %v", took)
		}
	})
}

func TestSeedsThatAppearLate(t *testing.T) {
	port, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := port.Addr().String()
	port.Close()
	s1 := start(t, Config{Self: plan.Member{Name: "s1", Role: plan.Shard}, Join: []string{address}})
	s2 := start(t, Config{Self: plan.Member{Name: "s2", Role: plan.Shard}, Join: []string{address}})
	s1.awaitLog("nobody listens there")
	s2.awaitLog("nobody listens there")

	if port, err = Listen(address); err != nil {
		t.Fatal(err)
	}
	c := start(t, Config{Self: plan.Member{Name: "c", Role: plan.Coordinator}, Port: port})
	for _, p := range []*peer{c, s1, s2} {
		p.await("all", has("c", "s1", "s2"))
	}
	for of, told := range map[*peer]bool{c: true, s1: false} { // shards leave it to the coordinator
		if strings.Contains(of.log.String(), "a member has joined\" member=s2") != told {
			t.Errorf("%s tells of s2, want %v:\n%s", of.name, told, of.log)
		}
	}
	if !strings.Contains(s1.log.String(), "a member has joined\" member=c") {
		t.Errorf("s1 does not tell of its coordinator:\n%s", s1.log)
	}
	s1.awaitLog("joined the cluster")
	if n := strings.Count(s1.log.String(), "nobody listens there"); n != 1 {
		t.Errorf("the failure was logged %d times:\n%s", n, s1.log)
	}

	// The coordinator dies and comes back, at its address and under its name, knowing nobody.
	c.port.Close()
	<-c.ended
	if c.err == nil {
		t.Error("Run ended without an error although its port was closed")
	}
	s1.awaitLog("the seed has gone")
	if port, err = Listen(address); err != nil {
		t.Fatal(err)
	}
	c = start(t, Config{Self: plan.Member{Name: "c", Role: plan.Coordinator, PID: 2}, Port: port})
	reborn := func(r plan.Roster) bool {
		m, _ := r.Find("c")
		return m.PID == 2 && has("c", "s1", "s2")(r)
	}
	for _, p := range []*peer{c, s1, s2} {
		p.await("the new coordinator", reborn)
	}
}

// A process must not wait for a seed that accepts connections and says nothing when it is to end.
func TestSilentSeed(t *testing.T) {
	seed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer seed.Close()
	s := start(t, Config{Self: plan.Member{Name: "s"}, Join: []string{seed.Addr().String()}})
	c, err := seed.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.leave()
	select {
	case <-s.ended:
	case <-time.After(3 * time.Second): // memberlist itself waits for 5
		t.Error("the end waits for a seed")
	}
}

func TestExplain(t *testing.T) {
	for text, want := range map[string]string{
		"1 error occurred:\n\t* failed to join 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused": "nobody listens",
		"1 error occurred:\n\t* failed to join 127.0.0.1:1: read tcp: EOF":                                     "another name or key",
		"1 error occurred:\n\t* failed to join 127.0.0.1:1: read tcp: i/o timeout":                             "address of a coordinator or shard",
		"1 error occurred:\n\t* failed to join 127.0.0.1:1: it rains\n\n":                                      "127.0.0.1:1: it rains",
		"lookup x: no such host": "lookup x: no such host",
	} {
		if got := explain(errors.New(text)).Error(); !strings.Contains(got, want) || strings.Contains(got, "error occurred") {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// With the timing that processes use, whoever dies without a word is gone within 5 seconds, and nobody else is.
func TestDeathIsSeen(t *testing.T) {
	seed := start(t, Config{Self: plan.Member{Name: "a"}, Timing: Timing{Retry: 20 * time.Millisecond}})
	peers := []*peer{seed}
	for _, name := range []string{"b", "c", "d"} {
		peers = append(peers, start(t, Config{Self: plan.Member{Name: name}, Join: []string{seed.Address()}, Timing: Timing{Retry: 20 * time.Millisecond}}))
	}
	for _, p := range peers {
		p.await("all", has("a", "b", "c", "d"))
	}
	begin := time.Now()
	peers[2].port.Close()
	for _, p := range []*peer{peers[0], peers[1], peers[3]} {
		for !has("a", "b", "d")(p.latest) {
			p.await("c to go", func(r plan.Roster) bool { return !slices.Contains(names(r), "c") })
			if !has("a", "b", "d")(p.latest) {
				t.Fatalf("%s sees %v", p.name, names(p.latest))
			}
		}
	}
	if took := time.Since(begin); took < 2*time.Second || took > 10*time.Second {
		t.Errorf("death was seen after %v", took)
	} else {
		t.Logf("death was seen after %v", took)
	}
}

func TestEightMembersAgree(t *testing.T) {
	const n = 8
	var addresses []string
	var ports []*Port
	var want []string
	for i := range n {
		port, err := Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
		addresses = append(addresses, port.Addr().String())
		want = append(want, fmt.Sprintf("m%d", i))
	}
	var peers []*peer
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) { // in any order; each knows one neighbour
		peers = append(peers, start(t, Config{Self: plan.Member{Name: want[i]}, Port: ports[i], Join: []string{addresses[(i+1)%n]}}))
	}
	for _, p := range peers {
		p.await("all", has(want...))
	}
	for _, p := range peers {
		if err := p.SetState(plan.Ready); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range peers {
		p.await("all to be ready", func(r plan.Roster) bool {
			return has(want...)(r) && !slices.ContainsFunc(r, func(m plan.Member) bool { return m.State != plan.Ready })
		})
		for i, m := range p.latest {
			if m.Address != addresses[i] {
				t.Errorf("%s sees %s at %s, not at %s", p.name, m.Name, m.Address, addresses[i])
			}
		}
	}
}

// Whoever listens on every address says which one the others are to use.
func TestEveryAddress(t *testing.T) {
	for _, listen := range []string{":0", "0.0.0.0:0"} {
		port, err := Listen(listen)
		if err != nil {
			t.Fatal(err)
		}
		a := start(t, Config{Self: plan.Member{Name: "a"}, Port: port, Advertise: "127.0.0.1"})
		if want := fmt.Sprintf("127.0.0.1:%d", port.bound().Port()); a.Address() != want {
			t.Errorf("on %s, %s is advertised, not %s", listen, a.Address(), want)
		}
		b := start(t, Config{Self: plan.Member{Name: "b"}, Join: []string{a.Address()}})
		a.await("b", has("a", "b"))
		for n := range uint64(3) {
			if err := a.SetPlan(n + 1); err != nil {
				t.Fatal(err)
			}
			b.await("the plan", func(r plan.Roster) bool { m, _ := r.Find("a"); return m.Plan == n+1 })
		}
	}
}

func TestWatchKeepsTheLatest(t *testing.T) {
	port, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	c, err := New(Config{Self: plan.Member{Name: "a"}, Port: port, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	slow := c.Watch(ctx)
	for n := range uint64(100) {
		if err := c.SetPlan(n + 1); err != nil {
			t.Fatal(err)
		}
	}
	if r := <-slow; r[0].Plan != 100 {
		t.Errorf("a slow reader gets plan %d", r[0].Plan)
	}
	cancel()
	if r, open := <-slow; open {
		t.Errorf("after its end a watcher gets %v", r)
	}
	if err := c.SetPlan(7); err != nil || c.Roster()[0].Plan != 7 {
		t.Errorf("without watchers: %v, %v", err, c.Roster())
	}
}

func TestBadConfigurations(t *testing.T) {
	port, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	for _, test := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Port = nil }, "a port and a log are needed"},
		{func(c *Config) { c.Self.Name = "" }, "1 to 64 printable bytes"},
		{func(c *Config) { c.Self.Name = strings.Repeat("n", 65) }, "1 to 64 printable bytes"},
		{func(c *Config) { c.Self.Name = "a\x00" }, "1 to 64 printable bytes"},
		{func(c *Config) { c.Self.Version = strings.Repeat("v", 33) }, "longer than 32 bytes"},
		{func(c *Config) { c.Self.Memory = -1 }, "not possible"},
		{func(c *Config) { c.Self.State = 99 }, "state 99 is not known"},
		{func(c *Config) { c.Label = strings.Repeat("l", 65) }, "longer than 64 bytes"},
		{func(c *Config) { c.SecretKey = []byte("short") }, "give 16, 24 or 32"},
		{func(c *Config) { c.Join = []string{"10.0.0.1"} }, "give host:port"},
		{func(c *Config) { c.Join = make([]string, 100) }, "100 seeds"},
		{func(c *Config) { c.Join = []string{"10.0.0.1:7000"} }, "listen on an address that others can reach"},
		{func(c *Config) { c.Advertise = "0.0.0.0" }, "name an address that others can reach"},
		{func(c *Config) { c.Advertise = "127.0.0.1:0" }, "a number from 1 to 65535"},
	} {
		config := Config{Self: plan.Member{Name: "a"}, Port: port, Log: slog.New(slog.DiscardHandler)}
		test.change(&config)
		if _, err := New(config); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %q", err, test.want)
		}
	}
}
