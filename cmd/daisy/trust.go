package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/credentials"

	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/services/cluster"
	"github.com/daisy-llm/daisy/services/rpc"
	"github.com/daisy-llm/daisy/services/trust"
)

// trustOptions say how a process protects what it listens on: not at all on loopback, by TLS beyond, unless told otherwise.
type trustOptions struct {
	Secure         bool
	Insecure       bool
	StateDir       string
	Token          secretFlag
	TokenFile      string
	TokenTTL       time.Duration // of the token that a coordinator prints; 0: none
	CertificateTTL time.Duration
}

func (o *trustOptions) bind(cmd *cobra.Command, env environment) {
	f := cmd.Flags()
	f.BoolVar(&o.Insecure, "insecure", false, "listen beyond loopback without encryption and without knowing who connects")
	f.BoolVar(&o.Secure, "secure", false, "use TLS on loopback as well")
	f.StringVar(&o.StateDir, "state-dir", env.stateDir, "`FOLDER` for keys and certificates (default: below daisy in the user's configuration folder, by name or address)")
	f.Var(&o.Token, "token", "the `TOKEN` that the coordinator printed (better: --token-file or DAISY_TOKEN, which other users do not see)")
	f.StringVar(&o.TokenFile, "token-file", "", "`FILE` that holds the token")
}

// secured says whether a process that listens there uses TLS.
func (o *trustOptions) secured(listen string) (bool, error) {
	asked := o.Secure || o.Token.text != "" || o.TokenFile != ""
	if asked && o.Insecure {
		return false, errors.New("--insecure does without what --secure, --token and --token-file are for: give the one or the others")
	}
	return asked || !o.Insecure && !cluster.IsLoopback(listen), nil
}

// warn says at every start what is missing.
func (o *trustOptions) warn(listen string, log *slog.Logger) {
	if o.Insecure && !cluster.IsLoopback(listen) {
		log.Warn("INSECURE: nothing is encrypted, and whoever reaches this address may read prompts, use the model and disturb the cluster", "listen", listen)
	}
}

// token is the one that was given, or none.
func (o *trustOptions) token(env environment) (trust.Token, error) {
	text, from := o.Token.text, "--token"
	switch {
	case text != "" && o.TokenFile != "":
		return trust.Token{}, errors.New("--token and --token-file are both given: one is enough")
	case o.TokenFile != "":
		from = "--token-file"
		raw, err := readSmall(o.TokenFile)
		if err != nil {
			return trust.Token{}, fmt.Errorf("--token-file: %w", err)
		}
		text = string(raw)
	case text == "":
		text, from = env.token, "DAISY_TOKEN"
	}
	if text == "" && from == "DAISY_TOKEN" {
		return trust.Token{}, nil
	}
	t, err := trust.ParseToken(text)
	if err != nil {
		return trust.Token{}, fmt.Errorf("%s: %w", from, err)
	}
	return t, nil
}

// readSmall reads a file that has one line.
func readSmall(path string) ([]byte, error) {
	const limit = 4 << 10
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s is too large to hold a token", path)
	}
	return os.ReadFile(path)
}

// stateFolder is where a process keeps keys and certificates: what was asked for, else one below daisy in the user's
// configuration folder.
func stateFolder(asked, role, key string) (string, error) {
	if asked != "" {
		return filepath.Abs(asked)
	}
	base, err := stateBase()
	if err != nil {
		return "", err
	}
	clean := strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, key)
	return filepath.Join(base, role+"-"+clean), nil
}

func stateBase() (string, error) {
	base, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find a folder for keys: %w: give --state-dir", err)
	}
	return filepath.Join(base, "daisy"), nil
}

// protection is what a process's connections need; the zero value protects nothing.
type protection struct {
	identity  *trust.Identity  // nil: plain
	authority *trust.Authority // nil: another coordinator's
}

func (p protection) secure() bool { return p.identity != nil }

// credentials are those of gRPC, on both sides.
func (p protection) credentials() credentials.TransportCredentials {
	if p.identity == nil {
		return rpc.Insecure()
	}
	return rpc.Secure(p.identity.Members(), p.identity.Dial)
}

// caller tells a server who calls.
func (p protection) caller() rpc.Caller {
	if p.identity == nil {
		return nil
	}
	return callerOf
}

func (p protection) gossipKey() []byte {
	if p.identity == nil {
		return nil
	}
	return p.identity.GossipKey()
}

// serve protects the HTTP API: with TLS for everyone, and with certificates for those that join.
func (p protection) serve(l net.Listener, api http.Handler) (net.Listener, http.Handler) {
	if p.identity == nil {
		return l, api
	}
	conf := p.identity.Anyone()
	conf.NextProtos = []string{"http/1.1"}
	if p.authority != nil {
		api = p.authority.Handler(api)
	}
	return tls.NewListener(l, conf), api
}

// run keeps the certificate fresh.
func (p protection) run(ctx context.Context) error {
	if p.identity == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return p.identity.Run(ctx)
}

func (p protection) close() {
	if p.identity != nil {
		p.identity.Close()
	}
}

// coordinatorsOf are the addresses of a roster's coordinators, which may renew certificates.
func coordinatorsOf(r plan.Roster) (addresses []string) {
	for _, m := range r.Coordinators() {
		addresses = append(addresses, m.Address)
	}
	return addresses
}

// protectShard makes a shard a member of its cluster, where that is asked for. Its name is then that of its certificate.
func protectShard(ctx context.Context, o shardOptions, coordinators func() []string, log *slog.Logger) (protection, error) {
	secured, err := o.Trust.secured(o.Listen)
	if err != nil || !secured {
		return protection{}, err
	}
	token, err := o.Trust.token(o.env)
	if err != nil {
		return protection{}, err
	}
	config := trust.MemberConfig{
		Role: plan.Shard, Name: o.Name, Otherwise: processName("shard"), Token: token, Join: o.Join, Coordinators: coordinators, Log: log,
	}
	key := o.Name
	if key == "" {
		key = o.Listen
	}
	_, port, _ := net.SplitHostPort(o.Listen)
	if o.Trust.StateDir != "" || o.Name != "" || port != "0" { // else nothing tells this shard from others on this machine
		if config.Dir, err = stateFolder(o.Trust.StateDir, "shard", key); err != nil {
			return protection{}, err
		}
	}
	identity, err := trust.Enter(ctx, config)
	if errors.Is(err, trust.ErrNoToken) {
		err = fmt.Errorf("%w: give the --token that the coordinator prints, or use --insecure on a network that you trust", err)
	}
	return protection{identity: identity}, err
}

// protectCoordinator opens the cluster's authority, which it makes at the first start; or, with a token, makes the coordinator a
// member of another's cluster.
func protectCoordinator(ctx context.Context, o coordinatorOptions, name string, coordinators func() []string, log *slog.Logger) (protection, error) {
	secured, err := o.Trust.secured(o.Listen)
	if err != nil || !secured {
		return protection{}, err
	}
	dir, err := stateFolder(o.Trust.StateDir, "coordinator", o.Listen)
	if err != nil {
		return protection{}, err
	}
	token, err := o.Trust.token(o.env)
	if err != nil {
		return protection{}, err
	}
	hosts := hostNames(o.Listen, o.Advertise)
	if !token.IsZero() || trust.IsMember(dir) {
		identity, err := trust.Enter(ctx, trust.MemberConfig{
			Role: plan.Coordinator, Name: o.Name, Otherwise: name, Hosts: hosts, Dir: dir, Token: token, Join: o.Join, Coordinators: coordinators, Log: log,
		})
		return protection{identity: identity}, err
	}
	config := trust.AuthorityConfig{Life: o.Trust.CertificateTTL, Log: log}
	authority, err := trust.OpenAuthority(dir, config)
	if errors.Is(err, trust.ErrNoAuthority) && len(o.Join) > 0 {
		return protection{}, fmt.Errorf("%w: to join another coordinator's cluster, give a token that it made: daisy token create --role coordinator", err)
	}
	if errors.Is(err, trust.ErrNoAuthority) {
		var made bool
		if authority, made, err = trust.MakeAuthority(ctx, dir, config); made {
			log.Info("made the cluster's authority", "folder", dir, "fingerprint", authority.Fingerprint().String())
		}
	}
	if err != nil {
		return protection{}, err
	}
	identity, err := authority.Identity(name, hosts)
	return protection{identity, authority}, err
}

// hostNames are the names and addresses by which clients may know a coordinator: its certificate holds them.
func hostNames(listen, advertise string) []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	add := func(host string) {
		if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
			for _, known := range hosts {
				if known == host {
					return
				}
			}
			hosts = append(hosts, host)
		}
	}
	for _, address := range []string{listen, advertise} {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			host = address
		}
		host, _, _ = strings.Cut(host, "%") // a zone means nothing to others
		add(host)
		if ip := net.ParseIP(host); address == listen && (host == "" || ip != nil && ip.IsUnspecified()) {
			addresses, _ := net.InterfaceAddrs()
			for _, a := range addresses {
				if network, ok := a.(*net.IPNet); ok && len(hosts) < maxOwnAddresses {
					add(network.IP.String())
				}
			}
		}
	}
	if name, err := os.Hostname(); err == nil {
		add(name)
	}
	return hosts
}

// maxOwnAddresses of a machine with very many are named in a certificate.
const maxOwnAddresses = 32

// callerOf is the peer of a connection as rpc wants it.
func callerOf(s tls.ConnectionState) (plan.Role, string, error) {
	p, err := trust.PeerOf(s)
	return p.Role, p.Name, err
}

// joinText tells how shards join.
func joinText(address string, p protection, ttl time.Duration) (string, error) {
	switch {
	case !p.secure():
		return fmt.Sprintf("Listening on http://%s/v1; shards join with: daisy shard --join %s\n", address, address), nil
	case p.authority == nil:
		return fmt.Sprintf("Listening on https://%s/v1; shards join with a token of the coordinator that has the cluster's authority\n", address), nil
	case ttl <= 0:
		return fmt.Sprintf("Listening on https://%s/v1; shards join with a token: make one with daisy token create\n", address), nil
	}
	token, err := p.authority.CreateToken(plan.Shard, ttl)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`Listening on https://%[1]s/v1; for %[3]v, shards on other machines join with:
  daisy shard --join %[1]s --listen ADDRESS:PORT --token %[2]s
`, address, token.Reveal(), ttl), nil
}
