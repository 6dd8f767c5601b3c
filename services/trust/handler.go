package trust

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

// maxRequests bounds the requests that are read and worked on at once.
const maxRequests = 16

// requestPatience is how long a client may take to send one.
const requestPatience = 10 * time.Second

// Handler answers requests for certificates, and leaves all others to next. Its server must use an Identity's Anyone.
func (a *Authority) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, pathPrefix) {
			next.ServeHTTP(w, r)
			return
		}
		status, answer := a.answer(w, r)
		body, err := json.Marshal(answer)
		if err != nil {
			status, body = http.StatusInternalServerError, nil
		}
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_, _ = w.Write(body) // whoever has gone cannot be told
	})
}

func (a *Authority) answer(w http.ResponseWriter, r *http.Request) (status int, answer any) {
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, problem{"use POST"}
	}
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	default:
		return http.StatusServiceUnavailable, problem{"too many processes join at once: try again"}
	}
	admitted, err := a.admit(w, r)
	if err != nil {
		a.logRefusal(r, err)
		status = http.StatusForbidden
		var own *ownError
		if errors.As(err, &own) {
			status, err = http.StatusInternalServerError, errors.New("the coordinator cannot make certificates: see its log")
		}
		return status, problem{err.Error()}
	}
	return http.StatusOK, admitted
}

// ownError is one that the client has no part in.
type ownError struct{ error }

func (e *ownError) Unwrap() error { return e.error }

// admit decides on one request.
func (a *Authority) admit(w http.ResponseWriter, r *http.Request) (admission, error) {
	var none admission
	if r.TLS == nil {
		return none, errors.New("certificates are given over TLS only")
	}
	application, err := a.read(w, r)
	if err != nil {
		return none, err
	}
	var peer Peer
	var hosts []string
	how := "renewal"
	switch r.URL.Path {
	case joinPath:
		peer, err = a.newcomer(application)
		hosts = application.Hosts
		how = "token"
	case renewPath:
		peer, hosts, err = a.member(r)
	default:
		err = errors.New("there is nothing of this name: use " + joinPath + " or " + renewPath)
	}
	if err != nil {
		return none, err
	}
	if peer.Role != plan.Coordinator && len(hosts) > 0 {
		return none, errors.New("only coordinators are known by names and addresses")
	}
	if err := checkHosts(hosts); err != nil {
		return none, err
	}
	var key *ecdsa.PublicKey
	if key, err = checkRequest(application.CSR, *r.TLS); err != nil {
		return none, err
	}
	admitted, err := a.issue(key, peer, hosts)
	if err != nil {
		return none, &ownError{err}
	}
	a.log.Info("a certificate was issued", "member", peer.Name, "role", peer.Role.String(), "from", r.RemoteAddr, "by", how, "token", tokenID(application.Token))
	return admitted, nil
}

// newcomer says who a process will be that comes with a token.
func (a *Authority) newcomer(application application) (Peer, error) {
	token, err := ParseToken(application.Token)
	if err != nil {
		return Peer{}, err
	}
	granted, err := a.redeem(token)
	if err != nil {
		if !errors.Is(err, errTokenUnknown) && !errors.Is(err, errTokenExpired) && !errors.Is(err, errTokenRevoked) {
			err = &ownError{err}
		}
		return Peer{}, err
	}
	role, err := ParseRole(application.Role)
	if err != nil {
		return Peer{}, err
	}
	if role != granted {
		return Peer{}, fmt.Errorf("the token is for a %s, not for a %s: make another with daisy token create --role %s", granted, role, role)
	}
	return Peer{Role: role, Name: application.Name}, checkName(application.Name)
}

// member says who renews a certificate: whoever the one before belongs to, if it is good at this moment and not only when
// the connection began.
func (a *Authority) member(r *http.Request) (Peer, []string, error) {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	peer, err := verify(r.TLS.PeerCertificates, pool, a.now())
	if err != nil {
		return Peer{}, nil, err
	}
	old := r.TLS.PeerCertificates[0]
	hosts := append([]string(nil), old.DNSNames...)
	for _, ip := range old.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return peer, hosts, nil
}

// read takes an application from a request's body, within bounds of size and time.
func (authority *Authority) read(w http.ResponseWriter, r *http.Request) (a application, err error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(authority.patience)) // fails in tests that have no connection
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil { // the deadline stays: net/http would wait for the rest of the body
		return a, fmt.Errorf("read the request: %w", err)
	}
	_ = control.SetReadDeadline(time.Time{})
	if err := json.Unmarshal(body, &a); err != nil {
		return a, errors.New("the request is no JSON of a request for a certificate")
	}
	return a, nil
}

// tokenID is what may be said of a token.
func tokenID(text string) string {
	if t, err := ParseToken(text); err == nil {
		return t.ID()
	}
	return ""
}

// refusalEvery bounds how often refusals are logged: whoever can connect can be refused as often as they like.
const refusalEvery = time.Second

func (a *Authority) logRefusal(r *http.Request, err error) {
	a.mu.Lock()
	now := a.now()
	if now.Sub(a.refused).Abs() < refusalEvery {
		a.unlogged++
		a.mu.Unlock()
		return
	}
	a.refused = now
	before := a.unlogged
	a.unlogged = 0
	a.mu.Unlock()
	a.log.Warn("a request for a certificate was refused", "from", r.RemoteAddr, "path", clip(r.URL.Path), "unlogged", before, "error", err)
}
