package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

// An Identity is one member's key and certificate, always the newest: its configurations serve connections made before and
// after a renewal alike.
type Identity struct {
	current  atomic.Pointer[credential]
	log      *slog.Logger
	now      func() time.Time
	renew    func(context.Context, *credential) (*credential, error)
	released func()
}

// Name is the member's, as its certificate says it.
func (i *Identity) Name() string { return i.current.Load().peer.Name }

// Expires is when the certificate does, if it is not renewed.
func (i *Identity) Expires() time.Time { return i.current.Load().leaf.NotAfter }

// Authority is the fingerprint of the cluster's.
func (i *Identity) Authority() Fingerprint { return fingerprintOf(i.current.Load().authorities[0]) }

// GossipKey encrypts the gossip between all members.
func (i *Identity) GossipKey() []byte { return slices.Clone(i.current.Load().gossip[0]) }

// Close lets other processes have the identity's folder.
func (i *Identity) Close() { i.released() }

// Members is the configuration of a server that only members may connect to.
func (i *Identity) Members() *tls.Config {
	c := i.server()
	c.ClientAuth = tls.RequireAnyClientCert // VerifyConnection does the rest
	return c
}

// Anyone is the configuration of a server that others may connect to as well: PeerOf tells them from members. A
// certificate that is shown must be a member's.
func (i *Identity) Anyone() *tls.Config {
	c := i.server()
	c.ClientAuth = tls.RequestClientCert
	return c
}

func (i *Identity) server() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true, // each connection is verified anew
		ClientCAs:              i.current.Load().pool,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &i.current.Load().pair, nil },
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return nil // as far as ClientAuth allows it
			}
			_, err := verify(s.PeerCertificates, i.current.Load().pool, i.now())
			return err
		},
	}
}

// Dial is the configuration of a connection to the shard of a name: nobody else may answer.
func (i *Identity) Dial(shard string) *tls.Config {
	return i.client(func(p Peer) bool { return p == Peer{plan.Shard, shard} }, fmt.Sprintf("shard %q", shard))
}

// client is the configuration of a connection to whom want accepts.
func (i *Identity) client(want func(Peer) bool, whom string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         tlsName,
		InsecureSkipVerify: true, // by host name; VerifyConnection verifies the member
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &i.current.Load().pair, nil
		},
		VerifyConnection: func(s tls.ConnectionState) error {
			p, err := verify(s.PeerCertificates, i.current.Load().pool, i.now())
			if err == nil && !want(p) {
				err = fmt.Errorf("%s answers, not %s", p, whom)
			}
			return err
		},
	}
}

// tlsName is what members call each other while they shake hands; names are in the certificates.
const tlsName = "daisy"

// ClientConfig is the configuration of a client that is no member: it talks to coordinators for which one of these authorities,
// or the authority that the token names, vouches.
func ClientConfig(authorities []*x509.Certificate, token Token) *tls.Config {
	pool := x509.NewCertPool()
	for _, a := range authorities {
		pool.AddCert(a)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         tlsName,
		InsecureSkipVerify: true, // by host name; VerifyConnection verifies the coordinator
		VerifyConnection: func(s tls.ConnectionState) error {
			p, err := verify(s.PeerCertificates, pool, time.Now())
			if err != nil && !token.IsZero() {
				p, err = pinned(s.PeerCertificates, token.authority, time.Now())
			}
			if err == nil && p.Role != plan.Coordinator {
				err = fmt.Errorf("%s answers, not a coordinator", p)
			}
			if err != nil {
				return fmt.Errorf("%w: %w", ErrNotTrusted, err)
			}
			return nil
		},
	}
}

// ErrNotTrusted: whoever answers is not the coordinator that a client may talk to.
var ErrNotTrusted = errors.New("whoever answers cannot prove to be its coordinator")

// ReadAuthorities reads certificates of authorities, as an authority's or a member's folder has them in AuthorityFile.
func ReadAuthorities(dir string) ([]*x509.Certificate, error) {
	blocks, err := folder(dir).readPEM(AuthorityFile, certificatePEM)
	if err != nil {
		return nil, err
	}
	var authorities []*x509.Certificate
	for _, der := range blocks {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", folder(dir).path(AuthorityFile), err)
		}
		authorities = append(authorities, c)
	}
	return authorities, nil
}

// How long between attempts to renew: a thirtieth of the certificate's life, within these bounds.
const (
	minRetry = time.Second
	maxRetry = time.Minute
)

// Run renews the certificate at two thirds of its life, until ctx ends. Where that fails it goes on trying, even after the
// end: work in flight lives on connections that are open already, and the authority may come back.
func (i *Identity) Run(ctx context.Context) error {
	told := ""
	for {
		c := i.current.Load()
		if wait := c.renewal().Sub(i.now()); wait > 0 {
			if !pause(ctx, min(wait, maxRetry)) { // in steps, for clocks that are set meanwhile
				return ctx.Err()
			}
			continue
		}
		fresh, err := i.renew(ctx, c)
		if err == nil {
			i.current.Store(fresh)
			i.log.Info("the certificate was renewed", "member", fresh.peer.Name, "expires", fresh.leaf.NotAfter)
			told = ""
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		level, what := slog.LevelWarn, "the certificate cannot be renewed yet; trying again"
		if !i.now().Before(c.leaf.NotAfter) {
			level, what = slog.LevelError, "the certificate has expired, nobody will accept new connections: start this process with a new token"
		}
		if why := what + err.Error(); told != why {
			i.log.Log(ctx, level, what, "expires", c.leaf.NotAfter, "error", err)
			told = why
		}
		if !pause(ctx, max(minRetry, min(maxRetry, c.leaf.NotAfter.Sub(c.issued())/30))) {
			return ctx.Err()
		}
	}
}

// pause returns false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errNobody: there is no one to ask.
var errNobody = errors.New("no coordinator is known")
