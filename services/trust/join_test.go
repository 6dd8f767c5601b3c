package trust

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

func TestWhoIsNotLetIn(t *testing.T) {
	s := newSite(t)
	other := newSite(t)
	revoked := s.token(plan.Shard, time.Hour)
	if err := s.Revoke(revoked.ID()); err != nil {
		t.Fatal(err)
	}
	expired := s.token(plan.Shard, time.Minute)
	s.clock.pass(time.Minute)
	guessed := s.token(plan.Shard, time.Hour)
	guessed.secret[3] ^= 1
	unknown := newToken(s.Fingerprint())
	foreign := other.token(plan.Shard, time.Hour)
	replaced := s.token(plan.Shard, time.Hour) // the secret of one cluster, with another's fingerprint
	replaced.authority = other.Fingerprint()
	shardOnly := s.token(plan.Shard, time.Hour)
	coordinatorOnly := s.token(plan.Coordinator, time.Hour)
	member := s.mustEnter(func(c *MemberConfig) { c.Name = "there" })
	shardAddress := serve(t, member.Members(), http.NotFoundHandler())
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	go http.Serve(plain, http.NotFoundHandler())

	for name, test := range map[string]struct {
		change func(*MemberConfig)
		want   string
	}{
		"no token":                   {func(c *MemberConfig) { c.Dir = t.TempDir() }, ErrNoToken.Error()},
		"an unknown token":           {func(c *MemberConfig) { c.Token = unknown }, "not known to this cluster"},
		"a guessed secret":           {func(c *MemberConfig) { c.Token = guessed }, "not known to this cluster"},
		"an expired token":           {func(c *MemberConfig) { c.Token = expired }, "has expired"},
		"a revoked token":            {func(c *MemberConfig) { c.Token = revoked }, "was revoked"},
		"another cluster's token":    {func(c *MemberConfig) { c.Token = foreign }, "does not belong to the cluster that made the token"},
		"another fingerprint":        {func(c *MemberConfig) { c.Token = replaced }, "does not belong to the cluster that made the token"},
		"a shard that would command": {func(c *MemberConfig) { c.Role, c.Token = plan.Coordinator, shardOnly }, "the token is for a shard"},
		"a coordinator that serves":  {func(c *MemberConfig) { c.Token = coordinatorOnly }, "the token is for a coordinator"},
		"a name that is too long":    {func(c *MemberConfig) { c.Name = strings.Repeat("n", 65) }, "1 to 64 printable bytes"},
		"a name that is none":        {func(c *MemberConfig) { c.Name = "a\nb" }, "1 to 64 printable bytes"},
		"a shard with a host":        {func(c *MemberConfig) { c.Hosts = []string{"bank.example"} }, "only coordinators"},
		"a host that is none": {func(c *MemberConfig) { c.Role, c.Token, c.Hosts = plan.Coordinator, coordinatorOnly, []string{"a b"} },
			"neither a name nor an address"},
		"through a shard":   {func(c *MemberConfig) { c.Join = []string{shardAddress} }, "name the coordinator's address"},
		"without TLS":       {func(c *MemberConfig) { c.Join = []string{plain.Addr().String()} }, "does not speak TLS"},
		"nobody of several": {func(c *MemberConfig) { c.Token, c.Join = foreign, []string{s.address, shardAddress} }, "does not belong"},
	} {
		if _, err := s.enter(test.change); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	if text := s.log.String(); !strings.Contains(text, "was refused") || strings.Contains(text, shardOnly.Reveal()) || strings.Contains(text, revoked.Reveal()) {
		t.Errorf("the log: %s", text)
	}
	if i := s.mustEnter(func(c *MemberConfig) {
		c.Role, c.Token, c.Hosts = plan.Coordinator, coordinatorOnly, []string{"host", "::1"}
	}); i.current.Load().peer.Role != plan.Coordinator {
		t.Errorf("a coordinator's token makes a %v", i.current.Load().peer)
	}
}

// Whoever is not the token's cluster does not even see the secret.
func TestSecretGoesToNobodyElse(t *testing.T) {
	s, thief := newSite(t), newSite(t)
	self, err := thief.Identity("c1", nil)
	if err != nil {
		t.Fatal(err)
	}
	address := serve(t, self.Anyone(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request reached a stranger") }))
	if _, err := s.enter(func(c *MemberConfig) { c.Join = []string{address} }); !errors.Is(err, errOtherAuthority) && (err == nil || !strings.Contains(err.Error(), errOtherAuthority.Error())) {
		t.Errorf("joining through a stranger: %v", err)
	}
}

// A shard waits for its coordinator, and takes the first address that helps.
func TestJoinWaits(t *testing.T) {
	s := newSite(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	if i := s.mustEnter(func(c *MemberConfig) { c.Join = []string{closed, s.address} }); i.Name() != "s1" {
		t.Errorf("it is %s", i.Name())
	}
	ctx, cancel := context.WithCancel(t.Context())
	log := &logged{}
	ended := make(chan error, 1)
	go func() {
		_, err := Enter(ctx, MemberConfig{Role: plan.Shard, Name: "s1", Token: s.token(plan.Shard, time.Hour), Join: []string{closed}, Log: slog.New(slog.NewTextHandler(log, nil))})
		ended <- err
	}()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(log.String(), "nobody listens there"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not say that it waits: %s", log)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
}

// The next life of a process needs no token, as long as its certificate is good.
func TestStateOutlivesTheProcess(t *testing.T) {
	s := newSite(t)
	dir := filepath.Join(t.TempDir(), "shard")
	first := s.mustEnter(func(c *MemberConfig) { c.Dir, c.Token = dir, s.token(plan.Shard, time.Hour) })
	if _, err := s.enter(func(c *MemberConfig) { c.Dir = dir }); !errors.Is(err, errInUse) {
		t.Errorf("two processes with one folder: %v", err)
	}
	first.Close()
	for name, test := range map[string]struct {
		change func(*MemberConfig)
		want   string
	}{
		"as before":       {func(c *MemberConfig) {}, ""},
		"under no name":   {func(c *MemberConfig) { c.Name, c.Otherwise = "", "another" }, ""},
		"nobody answers":  {func(c *MemberConfig) { c.Join = []string{"127.0.0.1:1"} }, ""},
		"another name":    {func(c *MemberConfig) { c.Name = "s2" }, `it is for "s1"`},
		"another role":    {func(c *MemberConfig) { c.Role = plan.Coordinator }, "it is for a shard"},
		"another cluster": {func(c *MemberConfig) { c.Token = newToken(Fingerprint{1}) }, "does not belong"},
	} {
		again, err := s.enter(func(c *MemberConfig) { c.Dir = dir; test.change(c) })
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if err == nil {
			if again.Name() != "s1" || !again.current.Load().leaf.Equal(first.current.Load().leaf) {
				t.Errorf("%s: it is %s now", name, again.Name())
			}
			again.Close()
		}
	}
	if !IsMember(dir) || IsMember(s.dir) {
		t.Error("the folders of members and authorities are not told apart")
	}
	s.clock.pass(25 * time.Hour)
	s = openSite(t, s.dir, s.clock)
	if _, err := s.enter(func(c *MemberConfig) { c.Dir = dir }); !errors.Is(err, ErrNoToken) || !strings.Contains(err.Error(), "valid from") {
		t.Errorf("with an expired certificate: %v", err)
	}
	s.mustEnter(func(c *MemberConfig) { c.Dir, c.Token = dir, s.token(plan.Shard, time.Hour) }).Close()
	if err := os.WriteFile(filepath.Join(dir, identityFile), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.enter(func(c *MemberConfig) { c.Dir = dir }); !errors.Is(err, ErrNoToken) {
		t.Errorf("with a damaged certificate: %v", err)
	}
}

// caller speaks to the authority as an attacker might, over one connection.
type caller struct {
	t    *testing.T
	conn *tls.Conn
}

func (s *site) call(conf *tls.Config) *caller {
	s.t.Helper()
	conn, err := tls.Dial("tcp", s.address, conf)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return &caller{s.t, conn}
}

// post sends a body, in its own connection, and returns the answer.
func (c *caller) post(method, path string, body []byte) (int, string) {
	c.t.Helper()
	transport := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return c.conn, nil }, DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: time.Minute}
	req, err := http.NewRequest(method, "https://daisy"+path, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

// csr makes a request for a certificate that is bound to a connection.
func csr(t *testing.T, s tls.ConnectionState, key any) []byte {
	t.Helper()
	bound, err := binding(s)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{SerialNumber: bound}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHostileRequests(t *testing.T) {
	s := newSite(t)
	token := s.token(plan.Shard, time.Hour).Reveal()
	anonymous := &tls.Config{InsecureSkipVerify: true}
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	large, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	slow, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	earlier := s.call(anonymous).conn.ConnectionState()
	apply := func(change func(*application)) func(tls.ConnectionState) []byte {
		return func(state tls.ConnectionState) []byte {
			a := application{Token: token, Role: "shard", Name: "s1", CSR: csr(t, state, key)}
			change(&a)
			return marshal(t, a)
		}
	}
	raw := func(b []byte) func(tls.ConnectionState) []byte { return func(tls.ConnectionState) []byte { return b } }
	for name, test := range map[string]struct {
		method, path string
		body         func(tls.ConnectionState) []byte
		status       int
		want         string
	}{
		"a good one":          {"POST", joinPath, apply(func(*application) {}), 200, `"certificate"`},
		"replayed":            {"POST", joinPath, apply(func(a *application) { a.CSR = csr(t, earlier, key) }), 403, "for another connection"},
		"no proof of the key": {"POST", joinPath, apply(func(a *application) { a.CSR[len(a.CSR)-1] ^= 1 }), 403, "certificate request"},
		"a larger key": {"POST", joinPath, func(st tls.ConnectionState) []byte {
			return apply(func(a *application) { a.CSR = csr(t, st, large) })(st)
		}, 403, "P-256"},
		"an RSA key": {"POST", joinPath, func(st tls.ConnectionState) []byte {
			return apply(func(a *application) { a.CSR = csr(t, st, slow) })(st)
		}, 403, "P-256"},
		"no request":             {"POST", joinPath, apply(func(a *application) { a.CSR = nil }), 403, "certificate request"},
		"garbage for a request":  {"POST", joinPath, apply(func(a *application) { a.CSR = bytes.Repeat([]byte{0x30}, 8000) }), 403, "certificate request"},
		"an unknown role":        {"POST", joinPath, apply(func(a *application) { a.Role = "king" }), 403, "not known"},
		"many hosts":             {"POST", joinPath, apply(func(a *application) { a.Hosts = make([]string, 100) }), 403, "only coordinators"},
		"too long":               {"POST", joinPath, raw(bytes.Repeat([]byte(" "), maxRequest+1)), 403, "too large"},
		"very long":              {"POST", joinPath, raw(bytes.Repeat([]byte("a"), 1<<20)), 403, "too large"},
		"deep":                   {"POST", joinPath, raw(bytes.Repeat([]byte("["), maxRequest)), 403, "no JSON"},
		"nothing":                {"POST", joinPath, raw(nil), 403, "no JSON"},
		"another type":           {"POST", joinPath, raw([]byte(`{"token": 7}`)), 403, "no JSON"},
		"a token in the wrong":   {"POST", joinPath, raw([]byte(`{"token": "hello"}`)), 403, "not a token"},
		"GET":                    {"GET", joinPath, raw(nil), 405, "POST"},
		"another path":           {"POST", pathPrefix + "x", raw([]byte("{}")), 403, "nothing of this name"},
		"renewal without a cert": {"POST", renewPath, apply(func(*application) {}), 403, "no certificate"},
	} {
		c := s.call(anonymous)
		status, text := c.post(test.method, test.path, test.body(c.conn.ConnectionState()))
		if status != test.status || !strings.Contains(text, test.want) {
			t.Errorf("%s: %d %s, want %d %q", name, status, text, test.status, test.want)
		}
		if strings.Contains(text, token) {
			t.Errorf("%s: the answer repeats the token", name)
		}
	}
	if text := s.log.String(); strings.Contains(text, token) {
		t.Errorf("the token is in the log: %s", text)
	}
	// Over plain HTTP there are no certificates, whatever the request.
	recorder := &answer{header: http.Header{}}
	req, err := http.NewRequest("POST", joinPath, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	s.Handler(http.NotFoundHandler()).ServeHTTP(recorder, req)
	if recorder.status != http.StatusForbidden || !strings.Contains(recorder.body.String(), "over TLS only") {
		t.Errorf("without TLS: %d %s", recorder.status, &recorder.body)
	}
}

// answer records an answer.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// Many that say nothing cost no more than their places, and not for ever.
func TestRequestsAreBounded(t *testing.T) {
	s := newSite(t)
	var silent []*caller
	for range maxRequests {
		c := s.call(&tls.Config{InsecureSkipVerify: true})
		fmt.Fprintf(c.conn, "POST %s HTTP/1.1\r\nHost: daisy\r\nContent-Length: 100\r\n\r\n{", joinPath)
		silent = append(silent, c)
	}
	for deadline := time.Now().Add(time.Minute); len(s.slots) < maxRequests; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests are in work", len(s.slots))
		}
	}
	if status, text := s.call(&tls.Config{InsecureSkipVerify: true}).post("POST", joinPath, nil); status != http.StatusServiceUnavailable {
		t.Errorf("one more: %d %s", status, text)
	}
	for _, c := range silent {
		c.conn.Close()
	}
	s.mustEnter(nil) // waits for a place
	s.patience = 50 * time.Millisecond
	c := s.call(&tls.Config{InsecureSkipVerify: true})
	fmt.Fprintf(c.conn, "POST %s HTTP/1.1\r\nHost: daisy\r\nContent-Length: 100\r\n\r\n{", joinPath)
	if res, err := http.ReadResponse(bufio.NewReader(c.conn), nil); err != nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("who does not speak on hears %v, %v", res, err)
	}
}

// A member gets the certificate that it had before, whatever it asks for.
func TestRenewalKeepsRoleAndName(t *testing.T) {
	s := newSite(t)
	member := s.mustEnter(nil)
	conf := member.client(func(Peer) bool { return true }, "")
	c := s.call(conf)
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	status, text := c.post("POST", renewPath, marshal(t, application{
		Role: "coordinator", Name: "king", Hosts: []string{"bank.example"}, CSR: csr(t, c.conn.ConnectionState(), key),
	}))
	var a admission
	if err := json.Unmarshal([]byte(text), &a); status != 200 || err != nil {
		t.Fatalf("%d %v %s", status, err, text)
	}
	fresh, err := newCredential(key, a, s.clock.now())
	if err != nil || fresh.peer != (Peer{plan.Shard, "s1"}) || len(fresh.leaf.DNSNames) != 0 {
		t.Errorf("%v, %v, %v", fresh.peer, fresh.leaf.DNSNames, err)
	}
	// A connection that was opened while the certificate was good does not renew it later.
	late := s.call(conf)
	answers := bufio.NewReader(late.conn)
	ask := func(method, path string, body []byte) (int, string) {
		t.Helper()
		fmt.Fprintf(late.conn, "%s %s HTTP/1.1\r\nHost: daisy\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	if status, text := ask("GET", "/v1", nil); status != http.StatusOK { // the server has verified the certificate by then
		t.Fatalf("%d %s", status, text)
	}
	s.clock.pass(25 * time.Hour)
	body := marshal(t, application{CSR: csr(t, late.conn.ConnectionState(), key)})
	if status, text := ask("POST", renewPath, body); status != http.StatusForbidden || !strings.Contains(text, "valid from") {
		t.Errorf("after its end: %d %s", status, text)
	}
}

// Answers are bounded too: a coordinator that was taken over does not bring its shards down.
func TestHostileAnswers(t *testing.T) {
	s := newSite(t)
	self, err := s.Identity("c1", nil)
	if err != nil {
		t.Fatal(err)
	}
	good := s.mustEnter(nil).current.Load()
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   string
	}{
		"endless": {func(w http.ResponseWriter) {
			for range 64 {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
					return
				}
			}
		}, "read the answer"},
		"a header without end": {func(w http.ResponseWriter) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, "EOF"},
		"no JSON":              {func(w http.ResponseWriter) { fmt.Fprint(w, "{") }, "read the answer"},
		"nothing":              {func(w http.ResponseWriter) { fmt.Fprint(w, "{}") }, "gossip keys"},
		"somebody else's": {func(w http.ResponseWriter) {
			w.Write(marshal(t, admission{good.leaf.Raw, [][]byte{s.certificate.Raw}, s.gossip}))
		}, "for another key"},
		"garbage": {func(w http.ResponseWriter) {
			w.Write(marshal(t, admission{[]byte("x"), [][]byte{s.certificate.Raw}, s.gossip}))
		}, "read the certificate"},
		"many authorities": {func(w http.ResponseWriter) { w.Write(marshal(t, admission{nil, make([][]byte, 100), s.gossip})) }, "100 authorities"},
		"odd words": {func(w http.ResponseWriter) {
			w.WriteHeader(403)
			fmt.Fprintf(w, `{"error":"a\u001b[2Jb%s"}`, strings.Repeat("c", 1000))
		}, "a [2Jb"},
	} {
		address := serve(t, self.Anyone(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			test.answer(w)
		}))
		_, err := exchange(t.Context(), address, ClientConfig(nil, s.token(plan.Shard, time.Hour)), joinPath, func(tls.ConnectionState) (application, error) { return application{}, nil })
		if err == nil {
			i := &Identity{now: s.clock.now, log: slog.New(slog.DiscardHandler)}
			_, err = i.first(t.Context(), MemberConfig{Token: s.token(plan.Shard, time.Hour), Join: []string{address}}, "s1")
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 600 {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
