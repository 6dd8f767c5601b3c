package trust

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

// Files of an authority's folder. The certificate comes last: without it, whatever else is there was never used.
const (
	// AuthorityFile is the authority's certificate, which is no secret: with it, clients know the cluster.
	AuthorityFile  = "authority.pem"
	authorityKey   = "authority-key.pem"
	gossipFile     = "gossip-key.pem"
	lockFile       = "lock"
	certificatePEM = "CERTIFICATE"
	keyPEM         = "PRIVATE KEY"
	gossipPEM      = "DAISY GOSSIP KEY"
	gossipBytes    = 32
)

// AuthorityConfig says how an authority works.
type AuthorityConfig struct {
	// Life is how long certificates are valid: the longer, the longer a stolen one is of use; members renew them at two
	// thirds. 0: 24 hours.
	Life time.Duration
	// Log hears who was let in and who was not.
	Log *slog.Logger
	// Now is the time; nil: the system's.
	Now func() time.Time
}

// An Authority vouches for the members of one cluster. Several processes may have the same one open.
type Authority struct {
	dir         folder
	life        time.Duration
	log         *slog.Logger
	now         func() time.Time
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	fingerprint Fingerprint
	gossip      [][]byte
	slots       chan struct{} // of requests in work
	patience    time.Duration // for a request to arrive

	mu       sync.Mutex
	refused  time.Time // when a refusal was last logged
	unlogged int       // refusals since
}

// ErrNoAuthority: a folder holds none.
var ErrNoAuthority = errors.New("there is no cluster authority here")

// OpenAuthority opens the authority in a folder: the same one each time.
func OpenAuthority(dir string, config AuthorityConfig) (*Authority, error) {
	a := &Authority{dir: folder(dir), life: config.Life, log: config.Log, now: config.Now, slots: make(chan struct{}, maxRequests), patience: requestPatience}
	if a.life <= 0 {
		a.life = 24 * time.Hour
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	certificates, err := a.dir.readPEM(AuthorityFile, certificatePEM)
	if missing(err) {
		return nil, fmt.Errorf("%w: %s", ErrNoAuthority, dir)
	}
	var keys [][]byte
	if err == nil {
		keys, err = a.dir.readPEM(authorityKey, keyPEM)
	}
	if err == nil {
		a.gossip, err = a.dir.readPEM(gossipFile, gossipPEM)
	}
	if err == nil {
		a.certificate, err = x509.ParseCertificate(certificates[0])
	}
	if err == nil {
		a.key, err = parseKey(keys[0])
	}
	if err == nil {
		err = a.check()
	}
	if err != nil {
		return nil, fmt.Errorf("open the cluster authority in %s: %w", dir, err)
	}
	a.fingerprint = sha256.Sum256(a.certificate.Raw)
	return a, nil
}

// MakeAuthority opens the authority in a folder, and makes it if there is none.
func MakeAuthority(ctx context.Context, dir string, config AuthorityConfig) (a *Authority, made bool, err error) {
	f := folder(dir)
	if err := f.make(); err != nil {
		return nil, false, err
	}
	unlock, err := f.lock(ctx, lockFile)
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	if a, err = OpenAuthority(dir, config); !errors.Is(err, ErrNoAuthority) {
		return a, false, err
	}
	now := time.Now
	if config.Now != nil {
		now = config.Now
	}
	if err := found(f, now()); err != nil {
		return nil, false, fmt.Errorf("make a cluster authority: %w", err)
	}
	a, err = OpenAuthority(dir, config)
	return a, true, err
}

// found makes the keys of a new cluster.
func found(dir folder, now time.Time) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	der, err := selfSigned(key, now)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	gossip := make([]byte, gossipBytes)
	rand.Read(gossip) // never fails
	for _, file := range []struct {
		name, kind string
		content    []byte
	}{
		{authorityKey, keyPEM, private},
		{gossipFile, gossipPEM, gossip},
		{AuthorityFile, certificatePEM, der},
	} {
		if err := dir.write(file.name, pem.EncodeToMemory(&pem.Block{Type: file.kind, Bytes: file.content})); err != nil {
			return err
		}
	}
	return nil
}

// check says what is wrong with an authority that was read.
func (a *Authority) check() error {
	if !a.key.PublicKey.Equal(a.certificate.PublicKey) {
		return errors.New("its key does not belong to its certificate")
	}
	if err := checkGossip(a.gossip); err != nil {
		return err
	}
	if now := a.now(); now.Before(a.certificate.NotBefore) || !now.Before(a.certificate.NotAfter) {
		return fmt.Errorf("it is valid from %s to %s only: set this machine's clock, or make a new one in another folder",
			a.certificate.NotBefore.Format(time.RFC3339), a.certificate.NotAfter.Format(time.RFC3339))
	}
	return nil
}

func checkGossip(keys [][]byte) error {
	if len(keys) == 0 || len(keys) > maxAuthorities {
		return fmt.Errorf("%d gossip keys, not 1 to %d", len(keys), maxAuthorities)
	}
	for _, key := range keys {
		if len(key) != gossipBytes {
			return fmt.Errorf("a gossip key of %d bytes, not %d", len(key), gossipBytes)
		}
	}
	return nil
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T is none of Daisy's", key)
	}
	return private, nil
}

// Fingerprint names the authority, and with it the cluster.
func (a *Authority) Fingerprint() Fingerprint { return a.fingerprint }

// issue makes what a member needs beside its key.
func (a *Authority) issue(public *ecdsa.PublicKey, p Peer, hosts []string) (admission, error) {
	der, err := issue(a.certificate, a.key, public, p, hosts, a.now(), a.life)
	if err != nil {
		return admission{}, err
	}
	return admission{Certificate: der, Authorities: [][]byte{a.certificate.Raw}, GossipKeys: a.gossip}, nil
}

// Identity is a coordinator's own, made here and kept in memory. Hosts are the names and addresses by which clients of its API
// know it.
func (a *Authority) Identity(name string, hosts []string) (*Identity, error) {
	self := Peer{Role: plan.Coordinator, Name: name}
	if err := errors.Join(checkName(name), checkHosts(hosts)); err != nil {
		return nil, err
	}
	i := &Identity{log: a.log, now: a.now, released: func() {}}
	i.renew = func(context.Context, *credential) (*credential, error) {
		key, err := newKey()
		if err != nil {
			return nil, err
		}
		admitted, err := a.issue(&key.PublicKey, self, hosts)
		if err != nil {
			return nil, err
		}
		return newCredential(key, admitted, a.now())
	}
	c, err := i.renew(context.Background(), nil)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for %s: %w", self, err)
	}
	i.current.Store(c)
	return i, nil
}
