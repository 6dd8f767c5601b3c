package trust

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
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

// A site is a coordinator with an authority that serves.
type site struct {
	*Authority
	t       *testing.T
	dir     string
	clock   *clock
	log     *logged
	address string
}

func newSite(t *testing.T) *site {
	t.Helper()
	return openSite(t, filepath.Join(t.TempDir(), "state"), newClock())
}

func openSite(t *testing.T, dir string, clock *clock) *site {
	t.Helper()
	s := &site{t: t, dir: dir, clock: clock, log: &logged{}}
	var err error
	s.Authority, _, err = MakeAuthority(t.Context(), dir, AuthorityConfig{Log: slog.New(slog.NewTextHandler(s.log, nil)), Now: clock.now})
	if err != nil {
		t.Fatal(err)
	}
	self, err := s.Identity("c1", []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	s.address = serve(t, self.Anyone(), s.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "next") })))
	return s
}

// serve serves HTTP over TLS until the test ends.
func serve(t *testing.T, conf *tls.Config, handler http.Handler) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.Serve(tls.NewListener(l, conf))
	}()
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
	return l.Addr().String()
}

func (s *site) token(role plan.Role, life time.Duration) Token {
	s.t.Helper()
	token, err := s.CreateToken(role, life)
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// enter joins the site, with changes to what a shard does.
func (s *site) enter(change func(*MemberConfig)) (*Identity, error) {
	config := MemberConfig{Role: plan.Shard, Name: "s1", Join: []string{s.address}, Log: slog.New(slog.DiscardHandler), Now: s.clock.now}
	if change != nil {
		change(&config)
	}
	if config.Token.IsZero() && config.Dir == "" {
		config.Token = s.token(config.Role, time.Hour)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	i, err := Enter(ctx, config)
	if err == nil {
		s.t.Cleanup(i.Close)
	}
	return i, err
}

func (s *site) mustEnter(change func(*MemberConfig)) *Identity {
	s.t.Helper()
	i, err := s.enter(change)
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

// handshake connects two configurations, and gives both ends' errors.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	deadline := time.Now().Add(time.Minute)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	done := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		} else {
			a.Close()
		}
		done <- err
	}()
	c := tls.Client(b, client)
	clientErr = c.Handshake()
	if clientErr == nil {
		_, clientErr = io.ReadFull(c, make([]byte, 1)) // a server's refusal comes after the client's side of the handshake
	} else {
		b.Close()
	}
	return <-done, clientErr
}

func TestMembersKnowEachOther(t *testing.T) {
	s := newSite(t)
	coordinator, err := s.Identity("c1", nil)
	if err != nil {
		t.Fatal(err)
	}
	one := s.mustEnter(nil)
	two := s.mustEnter(func(c *MemberConfig) { c.Name = `a "name" / with %2f 雏菊` })
	if one.Name() != "s1" || one.Authority() != s.Fingerprint() || !bytes.Equal(one.GossipKey(), coordinator.GossipKey()) || len(one.GossipKey()) != 32 {
		t.Errorf("it is %q, of %v, with a gossip key of %d bytes", one.Name(), one.Authority(), len(one.GossipKey()))
	}
	expired := s.mustEnter(func(c *MemberConfig) { c.Name = "old" })
	s.clock.pass(24*time.Hour - time.Second)
	fresh := func(name string) *Identity { return s.mustEnter(func(c *MemberConfig) { c.Name = name }) }
	one, two = fresh("s1"), fresh(two.Name())
	stranger := openSite(t, t.TempDir(), s.clock).mustEnter(nil)
	if coordinator, err = s.Identity("c1", nil); err != nil {
		t.Fatal(err)
	}
	s.clock.pass(2 * time.Second)

	for name, test := range map[string]struct {
		server, client *tls.Config
		want           string // "": both accept
	}{
		"coordinator to shard":         {one.Members(), coordinator.Dial("s1"), ""},
		"shard to shard":               {two.Members(), one.Dial(two.Name()), ""},
		"another shard's name":         {two.Members(), coordinator.Dial("s1"), "not shard"},
		"a coordinator for a shard":    {coordinator.Members(), one.Dial("c1"), "not shard"},
		"another cluster's client":     {one.Members(), stranger.Dial("s1"), "another cluster"},
		"another cluster's server":     {stranger.Members(), one.Dial("s1"), "another cluster"},
		"an expired client":            {one.Members(), expired.Dial("s1"), "valid from"},
		"an expired server":            {expired.Members(), one.Dial("old"), "valid from"},
		"no certificate":               {one.Members(), ClientConfig(nil, Token{}), "certificate"},
		"no certificate, but allowed":  {coordinator.Anyone(), &tls.Config{InsecureSkipVerify: true}, ""},
		"a stranger where all may":     {coordinator.Anyone(), stranger.Dial("c1"), "another cluster"},
		"TLS 1.2":                      {one.Members(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, "protocol version"},
		"an API client and no cluster": {coordinator.Anyone(), ClientConfig(nil, Token{}), ErrNotTrusted.Error()},
	} {
		serverErr, clientErr := handshake(t, test.server, test.client)
		got := fmt.Sprint(serverErr, " / ", clientErr)
		if (serverErr == nil && clientErr == nil) != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %s, want %q", name, got, test.want)
		}
	}
}

// API clients know a coordinator by its authority's certificate or by a token; the system's verification works as well.
func TestAPIClients(t *testing.T) {
	s := newSite(t)
	authorities, err := ReadAuthorities(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	other := newSite(t)
	standard := &tls.Config{RootCAs: s.mustEnter(nil).current.Load().pool}
	for name, test := range map[string]struct {
		conf  *tls.Config
		trust bool
	}{
		"by the authority":       {ClientConfig(authorities, Token{}), true},
		"by a token":             {ClientConfig(nil, s.token(plan.Shard, time.Hour)), true},
		"as curl does":           {standard, true},
		"by nothing":             {ClientConfig(nil, Token{}), false},
		"by another's token":     {ClientConfig(nil, other.token(plan.Shard, time.Hour)), false},
		"by another's authority": {ClientConfig(other.mustEnter(nil).current.Load().authorities, Token{}), false},
	} {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: test.conf, DisableKeepAlives: true}, Timeout: time.Minute}
		res, err := client.Get("https://" + s.address + "/v1")
		if err == nil {
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if string(body) != "next" {
				t.Errorf("%s: the API answers %q", name, body)
			}
		}
		if (err == nil) != test.trust {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = handshake(t, s.mustEnter(nil).Anyone(), ClientConfig(authorities, Token{}))
	if !errors.Is(err, ErrNotTrusted) || !strings.Contains(err.Error(), "not a coordinator") {
		t.Errorf("a shard in the place of a coordinator: %v", err)
	}
}

func TestAuthorityStaysTheSame(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	first := openSite(t, dir, newClock())
	token := first.token(plan.Shard, time.Hour)
	again, made, err := MakeAuthority(t.Context(), dir, AuthorityConfig{})
	if err != nil || made || again.Fingerprint() != first.Fingerprint() || !bytes.Equal(again.gossip[0], first.gossip[0]) {
		t.Errorf("made %v, %v, %v and %v", made, err, again.Fingerprint(), first.Fingerprint())
	}
	if role, err := again.redeem(token); role != plan.Shard || err != nil {
		t.Errorf("the token of the life before: %v, %v", role, err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < 4 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v (%v)", e.Name(), info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v (%v)", info.Mode(), err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, tokensFile))
	if err != nil || bytes.Contains(raw, token.secret[:]) || bytes.Contains(raw, []byte(token.Reveal())) {
		t.Errorf("the secret is in the file, or: %v", err)
	}
	if err := os.Chmod(filepath.Join(dir, authorityKey), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(dir, AuthorityConfig{}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that all may read: %v", err)
	}
}

func TestDamagedAuthority(t *testing.T) {
	for name, test := range map[string]struct {
		damage func(dir string) error
		want   string
	}{
		"no key":          {func(dir string) error { return os.Remove(filepath.Join(dir, authorityKey)) }, authorityKey},
		"an empty key":    {func(dir string) error { return os.WriteFile(filepath.Join(dir, authorityKey), nil, 0o600) }, "damaged"},
		"another key":     {func(dir string) error { return swap(t, dir, authorityKey) }, "does not belong"},
		"half a cert":     {func(dir string) error { return os.Truncate(filepath.Join(dir, AuthorityFile), 100) }, "damaged"},
		"a huge file":     {func(dir string) error { return os.Truncate(filepath.Join(dir, gossipFile), 1<<30) }, "no file of Daisy's"},
		"no gossip key":   {func(dir string) error { return os.Remove(filepath.Join(dir, gossipFile)) }, gossipFile},
		"a folder for it": {func(dir string) error { return replaceByFolder(filepath.Join(dir, gossipFile)) }, "no file of Daisy's"},
	} {
		dir := t.TempDir()
		if _, _, err := MakeAuthority(t.Context(), dir, AuthorityConfig{}); err != nil {
			t.Fatal(err)
		}
		if err := test.damage(dir); err != nil {
			t.Fatal(err)
		}
		if _, _, err := MakeAuthority(t.Context(), dir, AuthorityConfig{}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	if _, err := OpenAuthority(t.TempDir(), AuthorityConfig{}); !errors.Is(err, ErrNoAuthority) {
		t.Errorf("an empty folder: %v", err)
	}
}

func swap(t *testing.T, dir, file string) error {
	other := t.TempDir()
	if _, _, err := MakeAuthority(t.Context(), other, AuthorityConfig{}); err != nil {
		return err
	}
	return os.Rename(filepath.Join(other, file), filepath.Join(dir, file))
}

func replaceByFolder(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }

// What an authority signed is worth nothing once the authority itself has expired.
func TestExpiredAuthority(t *testing.T) {
	clock := newClock()
	s := openSite(t, t.TempDir(), clock)
	clock.pass(authorityLife - time.Hour)
	s = openSite(t, s.dir, clock)
	member := s.mustEnter(nil)
	if end := s.certificate.NotAfter; member.Expires().After(end) {
		t.Errorf("a certificate outlives its authority: %v, %v", member.Expires(), end)
	}
	clock.pass(2 * time.Hour)
	if _, _, err := MakeAuthority(t.Context(), s.dir, AuthorityConfig{Now: clock.now}); err == nil || !strings.Contains(err.Error(), "valid from") {
		t.Errorf("opened: %v", err)
	}
	// A certificate that claims to be valid for longer than its authority.
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	forever := *s.certificate
	forever.NotAfter = clock.now().Add(time.Hour)
	der, err := issue(&forever, s.key, &key.PublicKey, Peer{plan.Shard, "s1"}, nil, clock.now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, err = newCredential(key, admission{Certificate: der, Authorities: [][]byte{s.certificate.Raw}, GossipKeys: s.gossip}, clock.now())
	if err == nil || !strings.Contains(err.Error(), "Daisy cluster") {
		t.Errorf("a certificate of an expired authority: %v", err)
	}
}
