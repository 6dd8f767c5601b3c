package trust

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

// MemberConfig says how a process becomes a member of a cluster whose authority is elsewhere.
type MemberConfig struct {
	Role plan.Role
	// Name is the member's. "": that of the certificate which is there already, or else Otherwise.
	Name, Otherwise string
	// Hosts are the names and addresses by which clients know a coordinator; nil for a shard.
	Hosts []string
	// Dir keeps key and certificate, so that the next life of the process needs no token; no two processes can share it. "":
	// they are kept nowhere.
	Dir string
	// Token lets the process in where Dir does not.
	Token Token
	// Join are the addresses of coordinators to ask.
	Join []string
	// Coordinators, if set, gives the addresses of more, as they are heard of. It is called while Run runs, not by Enter.
	Coordinators func() []string
	Log          *slog.Logger
	// Now is the time; nil: the system's.
	Now func() time.Time
}

// ErrNoToken: there is neither a certificate nor a token.
var ErrNoToken = errors.New("joining a secured cluster needs a token")

// retryJoin is how long between attempts to reach the authority.
const retryJoin = time.Second

// Enter makes the process a member: with the certificate that Dir keeps, if it is still good, or by asking for one with the
// token. It waits for coordinators that do not answer yet, until ctx ends.
func Enter(ctx context.Context, config MemberConfig) (_ *Identity, err error) {
	i := &Identity{log: config.Log, now: config.Now, released: func() {}}
	if i.now == nil {
		i.now = time.Now
	}
	dir := folder(config.Dir)
	if dir != "" {
		if err := dir.make(); err != nil {
			return nil, err
		}
		if i.released, err = dir.own(lockFile); err != nil {
			return nil, fmt.Errorf("%w: give each process a --state-dir of its own", err)
		}
		defer func() {
			if err != nil {
				i.released()
			}
		}()
	}
	i.renew = func(ctx context.Context, old *credential) (*credential, error) {
		fresh, err := i.again(ctx, config.addresses(), old)
		if err != nil && !config.Token.IsZero() && !i.now().Before(old.leaf.NotAfter) {
			fresh, err = i.first(ctx, config, old.peer.Name) // the way back in, for who has a token that still counts
		}
		if err == nil && dir != "" {
			err = fresh.save(dir)
		}
		return fresh, err
	}

	kept, err := config.kept(i.now())
	if err == nil {
		i.current.Store(kept)
		return i, nil
	}
	if config.Token.IsZero() {
		if missing(err) {
			return nil, ErrNoToken
		}
		return nil, fmt.Errorf("%w: the certificate in %s is of no use: %w", ErrNoToken, dir, err)
	}
	name := config.Name
	if name == "" {
		name = config.Otherwise
	}
	early := config
	early.Coordinators = nil
	fresh, err := i.join(ctx, early, name)
	if err != nil {
		return nil, err
	}
	if dir != "" {
		if err := fresh.save(dir); err != nil {
			return nil, err
		}
	}
	i.current.Store(fresh)
	return i, nil
}

// addresses are all that are known of coordinators.
func (config *MemberConfig) addresses() []string {
	addresses := slices.Clone(config.Join)
	if config.Coordinators != nil {
		for _, a := range config.Coordinators() {
			if !slices.Contains(addresses, a) {
				addresses = append(addresses, a)
			}
		}
	}
	return addresses
}

// kept is the credential in the folder, if it is what the configuration asks for.
func (config *MemberConfig) kept(now time.Time) (*credential, error) {
	if config.Dir == "" {
		return nil, ErrNoToken
	}
	c, err := load(folder(config.Dir), now)
	switch {
	case err != nil:
		return nil, err
	case c.peer.Role != config.Role:
		return nil, fmt.Errorf("it is for a %s", c.peer.Role)
	case config.Name != "" && c.peer.Name != config.Name:
		return nil, fmt.Errorf("it is for %q", c.peer.Name)
	case !config.Token.IsZero() && config.Token.authority != fingerprintOf(c.authorities[0]):
		return nil, errors.New("it is for another cluster than the token")
	}
	return c, nil
}

func fingerprintOf(c *x509.Certificate) Fingerprint { return sha256.Sum256(c.Raw) }

// join asks until somebody answers. Only an answer that will be the same tomorrow ends it early.
func (i *Identity) join(ctx context.Context, config MemberConfig, name string) (*credential, error) {
	told := ""
	for {
		c, err := i.first(ctx, config, name)
		if err == nil || ctx.Err() != nil {
			return c, errors.Join(err, context.Cause(ctx))
		}
		var final *finalError
		if errors.As(err, &final) {
			return nil, fmt.Errorf("join the cluster: %w", err)
		}
		if told != err.Error() {
			told = err.Error()
			i.log.Warn("cannot join the cluster yet; trying again", "every", retryJoin, "error", err)
		}
		if !pause(ctx, retryJoin) {
			return nil, context.Cause(ctx)
		}
	}
}

// first asks for a certificate with the token.
func (i *Identity) first(ctx context.Context, config MemberConfig, name string) (*credential, error) {
	conf := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         tlsName,
		InsecureSkipVerify: true, // by host name; VerifyConnection holds the authority to the token
		VerifyConnection: func(s tls.ConnectionState) error {
			p, err := pinned(s.PeerCertificates, config.Token.authority, i.now())
			if err == nil && p.Role != plan.Coordinator {
				err = &finalError{fmt.Errorf("%s answers, not a coordinator: name the coordinator's address", p)}
			}
			return err
		},
	}
	return i.ask(ctx, config.addresses(), conf, joinPath, application{
		Token: config.Token.Reveal(), Role: config.Role.String(), Name: name, Hosts: config.Hosts,
	})
}

// again asks for a certificate with the one there is.
func (i *Identity) again(ctx context.Context, addresses []string, old *credential) (*credential, error) {
	conf := i.client(func(p Peer) bool { return p.Role == plan.Coordinator }, "a coordinator")
	c, err := i.ask(ctx, addresses, conf, renewPath, application{})
	if err == nil && c.peer != old.peer {
		return nil, fmt.Errorf("the new certificate is for %s, not for %s", c.peer, old.peer)
	}
	return c, err
}

// ask makes a key, and goes from address to address until one gives a certificate for it. The error is final if they all are.
func (i *Identity) ask(ctx context.Context, addresses []string, conf *tls.Config, path string, a application) (*credential, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	var failures []string
	final := true
	for _, address := range addresses {
		admitted, err := exchange(ctx, address, conf, path, func(s tls.ConnectionState) (application, error) {
			a.CSR, err = request(key, s)
			return a, err
		})
		if err == nil {
			var c *credential
			if c, err = newCredential(key, admitted, i.now()); err == nil {
				return c, nil
			}
		}
		failures = append(failures, fmt.Sprintf("%s: %v", address, err))
		final = final && errors.As(err, new(*finalError))
	}
	switch err := errors.New(strings.Join(failures, "; ")); {
	case len(addresses) == 0:
		return nil, errNobody
	case final:
		return nil, &finalError{err}
	default:
		return nil, err
	}
}

// finalError is one that trying again does not help.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// IsMember says whether a folder is that of a process that has joined a cluster before, and has no authority of its own.
func IsMember(dir string) bool {
	_, err := folder(dir).read(identityFile)
	return err == nil
}
