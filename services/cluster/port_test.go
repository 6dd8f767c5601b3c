package cluster

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

// openPort serves a port until the test ends.
func openPort(t *testing.T) *Port { return openPatientPort(t, sniffTimeout) }

func openPatientPort(t *testing.T, patience time.Duration) *Port {
	t.Helper()
	p, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.patience = patience
	var wg sync.WaitGroup
	wg.Go(p.serve)
	t.Cleanup(func() {
		p.Close()
		wg.Wait()
	})
	return p
}

func dial(t *testing.T, p *Port) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// serveHTTP answers with the protocol it was asked in.
func serveHTTP(t *testing.T, l net.Listener) {
	t.Helper()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })}
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		server.Close()
		wg.Wait()
	})
}

func get(t *testing.T, p *Port, http2 bool) string {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetUnencryptedHTTP2(http2)
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: 20 * time.Second}
	resp, err := client.Get("http://" + p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOneNumberForTCPAndUDP(t *testing.T) {
	p := openPort(t)
	if tcp, udp := p.tcp.Addr().String(), p.udp.LocalAddr().String(); tcp != udp {
		t.Errorf("TCP on %s, UDP on %s", tcp, udp)
	}
	if _, err := Listen(p.Addr().String()); err == nil || !strings.Contains(err.Error(), "listen on "+p.Addr().String()) {
		t.Errorf("a port was opened twice: %v", err)
	}
	if _, err := Listen("7000"); err == nil || !strings.Contains(err.Error(), "give host:port") {
		t.Errorf("an address without a host: %v", err)
	}
	// A number that only TCP has free is none.
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if half, err := Listen(udp.LocalAddr().String()); err == nil {
		half.Close()
		t.Error("a port was opened whose UDP half is taken")
	}
}

func TestEverythingOnOnePort(t *testing.T) {
	a := start(t, Config{Self: plan.Member{Name: "a"}})
	b := start(t, Config{Self: plan.Member{Name: "b"}, Join: []string{a.Address()}})
	serveHTTP(t, a.port.Listener())
	for range 3 {
		if got := get(t, a.port, false); got != "HTTP/1.1" {
			t.Errorf("HTTP/1.1 gave %q", got)
		}
		if got := get(t, a.port, true); got != "HTTP/2.0" {
			t.Errorf("HTTP/2 gave %q", got)
		}
		b.await("both", has("a", "b"))
		a.await("both", has("a", "b"))
		n := b.Roster()[1].Plan + 1
		if err := b.SetPlan(n); err != nil {
			t.Fatal(err)
		}
		a.await("the plan", func(r plan.Roster) bool { m, _ := r.Find("b"); return m.Plan == n })
	}
}

func TestTLSIsServed(t *testing.T) {
	p := openPort(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "over TLS") }))
	server.Listener.Close()
	server.Listener = p.Listener()
	server.StartTLS()
	defer server.Close()
	resp, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "over TLS" || resp.TLS.Version < tls.VersionTLS12 {
		t.Errorf("got %q", b)
	}
}

// The first byte decides, and is not lost, however the connection is read.
func TestFirstByte(t *testing.T) {
	p := openPort(t)
	for first := range 256 {
		c := dial(t, p)
		sent := append([]byte{byte(first)}, "the rest"...)
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		c.(*net.TCPConn).CloseWrite()
		var got io.ReadCloser
		switch {
		case first <= 20 || first == 244:
			got = <-p.gossip.StreamCh()
		case first >= 'A' && first <= 'Z' || first == 22:
			accepted, err := p.Listener().Accept()
			if err != nil {
				t.Fatal(err)
			}
			got = accepted
		default:
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("a connection that begins with %d was answered", first)
			}
			c.Close()
			continue
		}
		var all bytes.Buffer
		if first%2 == 0 {
			all.ReadFrom(got)
		} else { // as io.Copy reads
			io.Copy(&all, got)
		}
		if !bytes.Equal(all.Bytes(), sent) {
			t.Errorf("sent %q, arrived %q", sent, all.Bytes())
		}
		got.Close()
		c.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sniffed) > 1 { // the last one may be about to be forgotten
		t.Errorf("%d connections are still waited for", len(p.sniffed))
	}
}

func TestSilentClients(t *testing.T) {
	p := openPort(t)
	serveHTTP(t, p.Listener())
	first := dial(t, p)
	for range maxSniffed {
		dial(t, p)
	}
	if got := get(t, p, false); got != "HTTP/1.1" {
		t.Errorf("beside silent clients, HTTP/1.1 gave %q", got)
	}
	// The oldest had to make room, and was closed before its time.
	first.SetReadDeadline(time.Now().Add(sniffTimeout - time.Second))
	if _, err := first.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the oldest silent client is still connected: %v", err)
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func TestSilenceEnds(t *testing.T) {
	p := openPatientPort(t, 10*time.Millisecond)
	c := dial(t, p)
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a silent client: %v", err)
	}
}

// A deadline for the first byte is not one for the next.
func TestDeadlineIsLifted(t *testing.T) {
	p := openPatientPort(t, 50*time.Millisecond)
	c := dial(t, p)
	fmt.Fprint(c, "G")
	accepted, err := p.Listener().Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	time.AfterFunc(4*p.patience, func() { fmt.Fprint(c, "ET\n") })
	if line, err := bufio.NewReader(accepted).ReadString('\n'); line != "GET\n" || err != nil {
		t.Errorf("got %q, %v", line, err)
	}
}

func TestCloseLeavesNothingWaiting(t *testing.T) {
	p, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(p.serve)
	wg.Go(func() {
		if c, err := p.Listener().Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accepted %v, %v", c, err)
		}
	})
	silent, gossiping := dial(t, p), dial(t, p)
	gossiping.Write([]byte{244})
	p.Close()
	wg.Wait()
	for _, c := range []net.Conn{silent, gossiping} {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("a client is still connected: %v", err)
		}
	}
	if err := p.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

// Whoever stops serving does not stop the gossip.
func TestListenerClosesAlone(t *testing.T) {
	p := openPort(t)
	queued := dial(t, p)
	fmt.Fprint(queued, "GET")
	if err := p.Listener().Close(); err != nil {
		t.Fatal(err)
	}
	late := dial(t, p)
	fmt.Fprint(late, "GET")
	for _, c := range []net.Conn{queued, late} {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("a client of a closed listener is still connected: %v", err)
		}
	}
	c := dial(t, p)
	c.Write([]byte{244})
	(<-p.gossip.StreamCh()).Close()
}
