package trust

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// maxAuthorities bounds the lists of authorities and of gossip keys, which have one entry but for the time of a change.
const maxAuthorities = 4

// An admission is what an authority answers to a request that it grants. The first of a list is the one in use.
type admission struct {
	Certificate []byte   `json:"certificate"`
	Authorities [][]byte `json:"authorities"`
	GossipKeys  [][]byte `json:"gossip_keys"`
}

// A credential is one certificate of a member and what belongs to it. It is never changed.
type credential struct {
	key         *ecdsa.PrivateKey
	leaf        *x509.Certificate
	peer        Peer
	authorities []*x509.Certificate
	pool        *x509.CertPool // of authorities
	gossip      [][]byte
	pair        tls.Certificate // the leaf, then the first authority, whose fingerprint tokens name
}

// newCredential checks that what an authority sent fits together and is valid now.
func newCredential(key *ecdsa.PrivateKey, a admission, now time.Time) (*credential, error) {
	c := &credential{key: key, gossip: a.GossipKeys, pool: x509.NewCertPool()}
	if err := checkGossip(a.GossipKeys); err != nil {
		return nil, err
	}
	if len(a.Authorities) == 0 || len(a.Authorities) > maxAuthorities {
		return nil, fmt.Errorf("%d authorities, not 1 to %d", len(a.Authorities), maxAuthorities)
	}
	for _, der := range a.Authorities {
		authority, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read the authority's certificate: %w", err)
		}
		c.authorities = append(c.authorities, authority)
		c.pool.AddCert(authority)
	}
	var err error
	if c.leaf, err = x509.ParseCertificate(a.Certificate); err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	if !key.PublicKey.Equal(c.leaf.PublicKey) {
		return nil, errors.New("the certificate is for another key")
	}
	if c.peer, err = verify([]*x509.Certificate{c.leaf}, c.pool, now); err != nil {
		return nil, err
	}
	c.pair = tls.Certificate{Certificate: [][]byte{c.leaf.Raw, c.authorities[0].Raw}, PrivateKey: key, Leaf: c.leaf}
	return c, nil
}

// verify says who a certificate belongs to, if one of the authorities vouches for it now.
func verify(chain []*x509.Certificate, authorities *x509.CertPool, now time.Time) (Peer, error) {
	if len(chain) == 0 {
		return Peer{}, errors.New("it showed no certificate of a member")
	}
	options := x509.VerifyOptions{Roots: authorities, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := chain[0].Verify(options); err != nil {
		var invalid x509.CertificateInvalidError
		switch {
		case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
			c := invalid.Cert // its own, or its authority's
			return Peer{}, fmt.Errorf("the certificate of %s is valid from %s to %s only, it is %s now: %w",
				c.Subject.CommonName, c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339), err)
		case errors.As(err, new(x509.UnknownAuthorityError)):
			return Peer{}, fmt.Errorf("its certificate is of another cluster: %w", err)
		}
		return Peer{}, fmt.Errorf("its certificate is not valid: %w", err)
	}
	return peerOf(chain[0])
}

// pinned says whether a certificate chain is that of a coordinator, vouched for by the authority of a fingerprint.
func pinned(chain []*x509.Certificate, authority Fingerprint, now time.Time) (Peer, error) {
	for _, c := range chain {
		if sha256.Sum256(c.Raw) == authority {
			pool := x509.NewCertPool()
			pool.AddCert(c)
			return verify(chain, pool, now)
		}
	}
	return Peer{}, fmt.Errorf("%w: another cluster answers there, or somebody in between", errOtherAuthority)
}

var errOtherAuthority = errors.New("it does not belong to the cluster that made the token")

// issued is when the certificate was made, by the authority's clock.
func (c *credential) issued() time.Time { return c.leaf.NotBefore.Add(skew) }

// renewal is when the certificate is due to be renewed: at two thirds of its life.
func (c *credential) renewal() time.Time {
	return c.issued().Add(c.leaf.NotAfter.Sub(c.issued()) * 2 / 3)
}

const identityFile = "identity.pem"

// save keeps the credential for the next life of the process.
func (c *credential) save(dir folder) error {
	private, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return err
	}
	blocks := []pem.Block{{Type: keyPEM, Bytes: private}, {Type: certificatePEM, Bytes: c.leaf.Raw}}
	var authorities []byte
	for _, a := range c.authorities {
		block := pem.Block{Type: certificatePEM, Bytes: a.Raw}
		blocks = append(blocks, block)
		authorities = append(authorities, pem.EncodeToMemory(&block)...)
	}
	for _, key := range c.gossip {
		blocks = append(blocks, pem.Block{Type: gossipPEM, Bytes: key})
	}
	var all []byte
	for i := range blocks {
		all = append(all, pem.EncodeToMemory(&blocks[i])...)
	}
	return errors.Join(dir.write(identityFile, all), dir.write(AuthorityFile, authorities))
}

// load reads what save has written; it returns fs.ErrNotExist where there is nothing.
func load(dir folder, now time.Time) (*credential, error) {
	keys, err := dir.readPEM(identityFile, keyPEM)
	if err != nil {
		return nil, err
	}
	certificates, err := dir.readPEM(identityFile, certificatePEM)
	if err != nil {
		return nil, err
	}
	gossip, err := dir.readPEM(identityFile, gossipPEM)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keys[0])
	if err != nil {
		return nil, err
	}
	return newCredential(key, admission{Certificate: certificates[0], Authorities: certificates[1:], GossipKeys: gossip}, now)
}
