package trust

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// The authority's part of a coordinator's API.
const (
	pathPrefix = "/trust/"
	joinPath   = pathPrefix + "join"
	renewPath  = pathPrefix + "renew"
)

const (
	maxRequest      = 16 << 10 // bytes of a request's body
	maxAnswer       = 64 << 10 // bytes of an answer, header included
	exchangeTimeout = 15 * time.Second
)

// An application asks for a certificate. Renewals have only the request: all else is in the certificate before.
type application struct {
	Token string   `json:"token,omitempty"`
	Role  string   `json:"role,omitempty"`
	Name  string   `json:"name,omitempty"`
	Hosts []string `json:"hosts,omitempty"`
	CSR   []byte   `json:"csr"`
}

// problem is the body of an answer that refuses.
type problem struct {
	Error string `json:"error"`
}

// exchange sends one application over a connection of its own, which the application is made for.
func exchange(ctx context.Context, address string, conf *tls.Config, path string, apply func(tls.ConnectionState) (application, error)) (a admission, err error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	conf = conf.Clone()
	conf.NextProtos = []string{"http/1.1"}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: conf}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return a, explain(err)
	}
	conn := raw.(*tls.Conn)
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.NetConn().Close() })()
	application, err := apply(conn.ConnectionState())
	if err != nil {
		return a, err
	}
	body, err := json.Marshal(application)
	if err != nil {
		return a, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+path, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	if err := req.Write(conn); err != nil {
		return a, explain(err)
	}
	limited := io.LimitReader(conn, maxAnswer)
	res, err := http.ReadResponse(bufio.NewReader(limited), req)
	if err != nil {
		return a, explain(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return a, fmt.Errorf("read the answer: %w", explain(err))
	}
	if res.StatusCode != http.StatusOK {
		return a, refused(res.StatusCode, text)
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, fmt.Errorf("read the answer: %w", err)
	}
	return a, nil
}

// refused is the error that an answer stands for.
func refused(status int, text []byte) error {
	var p problem
	if json.Unmarshal(text, &p) != nil || p.Error == "" {
		p.Error = http.StatusText(status)
	}
	err := errors.New(printable(p.Error))
	switch {
	case status == http.StatusNotFound:
		return &finalError{errors.New("this member has no authority over the cluster: name the coordinator that made the token")}
	case status == http.StatusTooManyRequests, status >= 500:
		return err
	}
	return &finalError{err}
}

// printable keeps what a peer wrote on one line of a terminal.
func printable(s string) string {
	if len(s) > 300 {
		s = s[:300]
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return ' '
	}, s)
}

// explain says what a connection's failure means, and whether it is worth trying again.
func explain(err error) error {
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var remote *net.OpError
	switch {
	case errors.As(err, &record):
		return &finalError{errors.New("it does not speak TLS: was its coordinator started with --insecure, or on loopback without --secure?")}
	case errors.Is(err, errOtherAuthority):
		return &finalError{err}
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("nobody listens there (yet)")
	case errors.As(err, &alert), errors.As(err, &remote) && remote.Op == "remote error":
		return &finalError{fmt.Errorf("it accepts only members of its cluster: name the coordinator's address: %w", err)}
	}
	return err
}
