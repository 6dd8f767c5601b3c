package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

const (
	// skew is how far the clocks of a cluster's machines may differ: certificates are valid from so long before they are made.
	skew = 5 * time.Minute

	authorityLife = 10 * 365 * 24 * time.Hour

	maxName  = 64 // bytes of a member's name, as gossip has it
	maxHosts = 64 // names and addresses of a coordinator
	maxHost  = 253
)

// A Fingerprint is the SHA-256 of an authority's certificate.
type Fingerprint [sha256.Size]byte

func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// A Peer is who a certificate says that it belongs to.
type Peer struct {
	Role plan.Role
	Name string
}

func (p Peer) String() string { return fmt.Sprintf("%s %q", p.Role, p.Name) }

// scheme begins the URI under which a certificate names its member: daisy://shard/a1.
const scheme = "daisy"

func (p Peer) uri() *url.URL {
	return &url.URL{Scheme: scheme, Host: p.Role.String(), Path: "/" + p.Name}
}

// PeerOf is who is at the other end of a connection that one of an Identity's configurations has accepted.
func PeerOf(s tls.ConnectionState) (Peer, error) {
	if !s.HandshakeComplete || len(s.PeerCertificates) == 0 {
		return Peer{}, errors.New("it showed no certificate of a member")
	}
	return peerOf(s.PeerCertificates[0])
}

func peerOf(c *x509.Certificate) (Peer, error) {
	if len(c.URIs) != 1 || c.URIs[0].Scheme != scheme {
		return Peer{}, errors.New("its certificate is none of a member")
	}
	u := c.URIs[0]
	role, err := ParseRole(u.Host)
	if err != nil {
		return Peer{}, err
	}
	p := Peer{Role: role, Name: strings.TrimPrefix(u.Path, "/")}
	return p, checkName(p.Name)
}

// ParseRole reads a role as it is written in certificates and flags.
func ParseRole(text string) (plan.Role, error) {
	for _, r := range []plan.Role{plan.Shard, plan.Coordinator} {
		if text == r.String() {
			return r, nil
		}
	}
	return 0, fmt.Errorf("role %q is not known: it is %s or %s", clip(text), plan.Shard, plan.Coordinator)
}

// checkName holds a name to what gossip takes.
func checkName(name string) error {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return fmt.Errorf("name %q must have 1 to %d printable bytes", clip(name), maxName)
	}
	return nil
}

// clip keeps what a peer made up from filling a log.
func clip(s string) string {
	if len(s) > maxName {
		return s[:maxName] + "..."
	}
	return s
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

// selfSigned makes an authority's certificate.
func selfSigned(key *ecdsa.PrivateKey, now time.Time) ([]byte, error) {
	n := serial()
	template := &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: fmt.Sprintf("Daisy cluster %x", n.Bytes()[:4])},
		NotBefore: now.Add(-skew), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

// issue signs a member's certificate. Only coordinators are found by names and addresses; who dials a shard knows its name.
func issue(authority *x509.Certificate, signer *ecdsa.PrivateKey, public any, p Peer, hosts []string, now time.Time, life time.Duration) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: p.Name}, URIs: []*url.URL{p.uri()},
		NotBefore: now.Add(-skew), NotAfter: now.Add(life),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if template.NotAfter.After(authority.NotAfter) {
		template.NotAfter = authority.NotAfter
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return x509.CreateCertificate(rand.Reader, template, authority, public, signer)
}

// checkHosts refuses names that no certificate can hold.
func checkHosts(hosts []string) error {
	if len(hosts) > maxHosts {
		return fmt.Errorf("%d names and addresses, more than %d", len(hosts), maxHosts)
	}
	for _, host := range hosts {
		if net.ParseIP(host) != nil {
			continue
		}
		odd := func(r rune) bool {
			return r != '-' && r != '.' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}
		if host == "" || len(host) > maxHost || strings.ContainsFunc(host, odd) {
			return fmt.Errorf("%q is neither a name nor an address of a machine", clip(host))
		}
	}
	return nil
}

// request is a CSR: proof that its sender has the key. Its serial number binds it to a connection.
func request(key *ecdsa.PrivateKey, s tls.ConnectionState) ([]byte, error) {
	bound, err := binding(s)
	if err != nil {
		return nil, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{SerialNumber: bound}}
	return x509.CreateCertificateRequest(rand.Reader, template, key)
}

// checkRequest gives the key that a CSR asks a certificate for.
func checkRequest(der []byte, s tls.ConnectionState) (*ecdsa.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate request: %w", err)
	}
	// Before any arithmetic: only keys of our own kind, whose size is bounded.
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the certificate request is not for a key on P-256")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check the certificate request: %w", err)
	}
	bound, err := binding(s)
	if err != nil {
		return nil, err
	}
	if csr.Subject.SerialNumber != bound {
		return nil, errors.New("the certificate request was made for another connection")
	}
	return key, nil
}

// binding is a value that both ends of a TLS connection know, and no other connection has.
func binding(s tls.ConnectionState) (string, error) {
	b, err := s.ExportKeyingMaterial("EXPORTER-daisy-certificate-request", nil, 32)
	if err != nil {
		return "", fmt.Errorf("bind the certificate request to its connection: %w", err)
	}
	return hex.EncodeToString(b), nil
}
