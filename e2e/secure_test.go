//go:build linux

package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/daisy-llm/daisy/coordinator/plan"
	daisyv1 "github.com/daisy-llm/daisy/proto/daisy/v1"
	"github.com/daisy-llm/daisy/services/rpc"
	"github.com/daisy-llm/daisy/services/trust"
)

var tokenText = regexp.MustCompile(`daisy_[A-Za-z0-9_-]{60,}`)

// secured is a coordinator that speaks TLS on loopback.
type secured struct {
	*cluster
	state string
	token string // the one it printed
}

func startSecured(t *testing.T, state string, args ...string) *secured {
	t.Helper()
	address := freePort(t)
	args = append([]string{"coordinator", "--model", golden, "--listen", address, "--secure", "--state-dir", state}, args...)
	s := &secured{cluster: &cluster{process: start(t, args...), address: address}, state: state}
	waitFor(t, "the coordinator to print a token", func() bool {
		s.ended(t)
		s.token = tokenText.FindString(s.stdout.String())
		return s.token != "" && strings.HasSuffix(s.stdout.String(), "\n")
	})
	return s
}

func (s *secured) ended(t *testing.T) {
	t.Helper()
	select {
	case <-s.done:
		t.Fatalf("%s ended: %v", s, s.err)
	default:
	}
}

// shard starts a shard with the token in its environment.
func (s *secured) shard(t *testing.T, name, token, state string, args ...string) *process {
	t.Helper()
	p := newProcess(t, append([]string{"shard", "--join", s.address, "--secure", "--name", name, "--state-dir", state, "--threads", "1", "--memory", "1GiB"}, args...)...)
	p.cmd.Env = append(p.cmd.Env, "DAISY_TOKEN="+token)
	p.run(t)
	return p
}

// client is what curl is with --cacert.
func (s *secured) client(t *testing.T) *http.Client {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.state, trust.AuthorityFile))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		t.Fatalf("no certificate: %s", raw)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}, Timeout: time.Minute}
}

func (s *secured) awaitReady(t *testing.T) {
	t.Helper()
	client := s.client(t)
	waitFor(t, "/readyz", func() bool {
		s.ended(t)
		res, err := client.Get("https://" + s.address + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// shards are those that the coordinator knows, by `daisy status`, which knows the coordinator by the folder.
func (s *secured) shards(t *testing.T) (names, addresses []string) {
	t.Helper()
	stdout, stderr, code := daisy(t, "status", "--coordinator", "https://"+s.address, "--state-dir", s.state, "--json")
	var report struct {
		Shards []struct{ Name, Address string }
	}
	if err := json.Unmarshal([]byte(stdout), &report); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v: %s", code, err, stderr)
	}
	for _, shard := range report.Shards {
		names, addresses = append(names, shard.Name), append(addresses, shard.Address)
	}
	return names, addresses
}

// Shards join with a token, answer, and renew their certificates; what must stay secret does.
func TestSecureCluster(t *testing.T) {
	folders := t.TempDir()
	s := startSecured(t, filepath.Join(folders, "c"), "--shards", "2", "--certificate-ttl", "15s")
	one := newProcess(t, "shard", "--join", s.address, "--token", s.token, "--name", "one", "--state-dir", filepath.Join(folders, "one"), "--threads", "1", "--memory", "1GiB")
	one.run(t)
	file := filepath.Join(folders, "token")
	if err := os.WriteFile(file, []byte(s.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	two := start(t, "shard", "--join", s.address, "--token-file", file, "--name", "two", "--threads", "1", "--memory", "1GiB", "--state-dir", filepath.Join(folders, "two"))
	s.awaitReady(t)
	complete := func() {
		t.Helper()
		res, err := s.client(t).Post("https://"+s.address+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"Hello","temperature":0,"max_tokens":8,"ignore_eos":true}`))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var got struct {
			Usage struct {
				Completion int `json:"completion_tokens"`
			}
		}
		if err := json.NewDecoder(res.Body).Decode(&got); err != nil || got.Usage.Completion != 8 {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	complete()
	for _, p := range []*process{one, two} {
		waitFor(t, "a renewal", func() bool { return strings.Contains(p.stderr.String(), "the certificate was renewed") })
	}
	waitFor(t, "the coordinator's own renewal", func() bool { return strings.Contains(s.stderr.String(), "the certificate was renewed") })
	complete()
	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", one.cmd.Process.Pid))
	if err != nil || bytes.Contains(arguments, []byte(s.token)) || !bytes.Contains(arguments, []byte("--token")) {
		t.Errorf("its arguments are %q (%v)", arguments, err)
	}
	for _, p := range []*process{s.process, one, two} {
		if strings.Contains(p.stderr.String(), s.token) || strings.Contains(p.stderr.String(), s.token[20:60]) {
			t.Errorf("%s: the token is in the log", p)
		}
	}
}

// A shard that is killed comes back with the certificate that it kept.
func TestShardComesBackWithoutToken(t *testing.T) {
	folders := t.TempDir()
	s := startSecured(t, filepath.Join(folders, "c"))
	one := s.shard(t, "one", s.token, filepath.Join(folders, "one"))
	s.awaitReady(t)
	one.cmd.Process.Kill()
	<-one.done
	again := s.shard(t, "one", "", filepath.Join(folders, "one"))
	waitFor(t, "the shard to come back without a token", func() bool {
		select {
		case <-again.done:
			t.Fatalf("%s ended: %v", again, again.err)
		default:
		}
		return strings.Contains(again.stderr.String(), "joined the cluster")
	})
	waitFor(t, "the coordinator to use it again", func() bool {
		res, err := s.client(t).Post("https://"+s.address+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"Hello","max_tokens":1}`))
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// Who has no good token, or another cluster's keys, stays outside and is told why.
func TestOutsiders(t *testing.T) {
	folders := t.TempDir()
	s := startSecured(t, filepath.Join(folders, "c"))
	other := startSecured(t, filepath.Join(folders, "other"))
	s.shard(t, "member", s.token, filepath.Join(folders, "member"))
	s.awaitReady(t)

	create := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := daisy(t, append([]string{"token", "create", "--state-dir", s.state}, args...)...)
		if code != 0 {
			t.Fatal(stderr)
		}
		return strings.TrimSpace(stdout)
	}
	expired := create("--ttl", "1ns")
	revoked := create()
	parsed, err := trust.ParseToken(revoked)
	if err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := daisy(t, "token", "revoke", "--state-dir", s.state, parsed.ID()); code != 0 {
		t.Fatal(stderr)
	}
	list, _, _ := daisy(t, "token", "list", "--state-dir", s.state)
	for _, want := range []string{parsed.ID() + ` +shard +revoked`, ` +shard +expired`, ` +shard +valid`} {
		if !regexp.MustCompile(want).MatchString(list) || strings.Contains(list, revoked) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	for name, test := range map[string]struct{ token, says string }{
		"none":              {"", "needs a token"},
		"cut off":           {s.token[:50], "damaged or cut off"},
		"another cluster's": {other.token, "does not belong to the cluster that made the token"},
		"expired":           {expired, "has expired"},
		"revoked":           {revoked, "was revoked"},
		"a coordinator's":   {create("--role", "coordinator"), "the token is for a coordinator"},
	} {
		p := s.shard(t, "outsider", test.token, filepath.Join(folders, "outsider"))
		if code := p.finish(t); code == 0 || !strings.Contains(p.stderr.String(), test.says) {
			t.Errorf("%s: exit code %d, stderr %s", name, code, p.stderr)
		}
	}
	// Gossip without a key, and with another cluster's.
	plain := start(t, "shard", "--join", s.address, "--name", "plain", "--threads", "1", "--memory", "1GiB")
	stranger := other.shard(t, "stranger", other.token, filepath.Join(folders, "stranger"), "--join", s.address)
	for _, p := range []*process{plain, stranger} {
		waitFor(t, "the refusal", func() bool { return strings.Contains(p.stderr.String(), "cannot join the cluster yet") })
	}
	if names, _ := s.shards(t); len(names) != 1 || names[0] != "member" {
		t.Errorf("the shards are %v", names)
	}
	// Plain HTTP gets a plain answer, and nothing else.
	res, err := http.Get("http://" + s.address + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("over plain HTTP: %s", res.Status)
	}
	if line := fails(t, "status", "--coordinator", s.address); !strings.Contains(line, "https://"+s.address) {
		t.Error(line)
	}
	if line := fails(t, "status", "--coordinator", "https://"+s.address, "--state-dir", other.state); !strings.Contains(line, "not trusted") {
		t.Error(line)
	}
}

// What a shard serves is for members only, and what commands it for coordinators only.
func TestShardsObeyCoordinatorsOnly(t *testing.T) {
	folders := t.TempDir()
	s := startSecured(t, filepath.Join(folders, "c"))
	s.shard(t, "target", s.token, filepath.Join(folders, "target"))
	s.awaitReady(t)
	_, addresses := s.shards(t)
	enter := func(role plan.Role, name, token string) *trust.Identity {
		t.Helper()
		parsed, err := trust.ParseToken(token)
		if err != nil {
			t.Fatal(err)
		}
		i, err := trust.Enter(t.Context(), trust.MemberConfig{Role: role, Name: name, Token: parsed, Join: []string{s.address}})
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	token, _, _ := daisy(t, "token", "create", "--role", "coordinator", "--state-dir", s.state)
	stolen := enter(plan.Shard, "stolen", s.token)
	commander := enter(plan.Coordinator, "c2", token)
	secure := func(i *trust.Identity) []grpc.DialOption {
		return rpc.DialOptions(rpc.Secure(i.Members(), i.Dial))
	}
	for name, test := range map[string]struct {
		dial           []grpc.DialOption
		shard          string // that the caller means to reach
		control, other codes.Code
	}{
		"a coordinator":     {secure(commander), "target", codes.OK, codes.OK},
		"a shard":           {secure(stolen), "target", codes.PermissionDenied, codes.OK},
		"for another shard": {secure(commander), "else", codes.Unavailable, codes.Unavailable},
		"without TLS":       {rpc.DialOptions(insecure.NewCredentials()), "target", codes.Unavailable, codes.Unavailable},
	} {
		conn, err := grpc.NewClient("passthrough:///"+addresses[0], append(test.dial, grpc.WithAuthority(test.shard))...)
		if err != nil {
			t.Fatal(err)
		}
		client := daisyv1.NewShardServiceClient(conn)
		_, describe := client.Describe(t.Context(), &daisyv1.DescribeRequest{})
		control := func() error {
			stream, err := client.Control(t.Context())
			if err != nil {
				return err
			}
			if err := stream.Send(&daisyv1.ControlRequest{Command: &daisyv1.ControlRequest_Hello{Hello: &daisyv1.Hello{Name: "x", Protocol: 1 << 30}}}); err != nil {
				return err
			}
			_, err = stream.Recv() // a coordinator of another version is answered
			return err
		}()
		results, err := client.Results(t.Context(), &daisyv1.ResultsRequest{Coordinator: "x"})
		if err == nil {
			_, err = results.Recv()
		}
		if status.Code(describe) != test.other || status.Code(control) != test.control || test.control != codes.OK && status.Code(err) != test.control {
			t.Errorf("%s: Describe %v, Control %v, Results %v", name, describe, control, err)
		}
		conn.Close()
	}
}

// A cluster whose authority has expired does not start as if nothing were the matter.
func TestExpiredAuthority(t *testing.T) {
	dir := t.TempDir()
	past := func() time.Time { return time.Now().Add(-20 * 365 * 24 * time.Hour) }
	if _, _, err := trust.MakeAuthority(t.Context(), dir, trust.AuthorityConfig{Now: past}); err != nil {
		t.Fatal(err)
	}
	if line := fails(t, "coordinator", "--model", golden, "--listen", "127.0.0.1:0", "--secure", "--state-dir", dir); !strings.Contains(line, "valid from") {
		t.Error(line)
	}
}

// --insecure says what it means, each time, and contradicts the rest.
func TestInsecureIsLoud(t *testing.T) {
	p := start(t, "coordinator", "--model", golden, "--listen", "0.0.0.0:0", "--advertise", "127.0.0.1", "--insecure")
	waitFor(t, "the warning", func() bool { return strings.Contains(p.stderr.String(), "INSECURE: nothing is encrypted") })
	for _, args := range [][]string{{"--secure"}, {"--token", "x"}, {"--token-file", "x"}} {
		if line := fails(t, append([]string{"shard", "--join", "127.0.0.1:1", "--insecure"}, args...)...); !strings.Contains(line, "give the one or the others") {
			t.Error(line)
		}
	}
}
