//go:build linux

package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/daisy-llm/daisy/deploy/lab/lab"
)

// The authority's certificate, in the coordinator's state folder: once it is there, the cluster can be joined.
const authorityFile = "authority.pem"

// tokenLife is longer than any lab lives.
const tokenLife = "720h"

func stateOf(m *lab.Machine) string { return filepath.Join(m.Disk, "state") }

func (c *Cluster) tokenFile() string { return filepath.Join(c.lab.Machines[0].Disk, "token") }

// trust is what a machine's program must be told to trust the others.
func (c *Cluster) trust(m *lab.Machine) []string {
	switch {
	case c.cfg.Insecure:
		return []string{"--insecure"}
	case m == c.lab.Machines[0]:
		return []string{"--state-dir", stateOf(m), "--token-ttl", "0"} // none is printed: admit makes one
	}
	return []string{"--state-dir", stateOf(m), "--token-file", c.tokenFile()}
}

// admit makes the token by which shards join, once the coordinator, which was started, has made its authority.
func (c *Cluster) admit(ctx context.Context) error {
	if c.cfg.Insecure {
		return nil
	}
	state := stateOf(c.lab.Machines[0])
	for {
		if _, err := os.Stat(filepath.Join(state, authorityFile)); err == nil {
			break
		}
		select {
		case <-c.Process(c.lab.Machines[0]).Done:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("the coordinator has made no authority: %w", context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
	token, err := exec.CommandContext(ctx, c.cfg.Binary, "token", "create", "--state-dir", state, "--ttl", tokenLife).Output()
	if err != nil {
		said := ""
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			said = ": " + string(exit.Stderr)
		}
		return fmt.Errorf("make a join token: %w%s", err, said)
	}
	return os.WriteFile(c.tokenFile(), token, 0o600)
}

// URL is where the API is, in the lab.
func (c *Cluster) URL() string {
	if c.cfg.Insecure {
		return "http://" + c.Address()
	}
	return "https://" + c.Address()
}

// Client speaks HTTP from the coordinator's machine. It knows the coordinator by its authority, so that must have been made. Its connections are
// closed by CloseIdleConnections.
func (c *Cluster) Client() (*http.Client, error) {
	config, err := c.tls()
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: &http.Transport{DialContext: c.lab.Machines[0].Dial, TLSClientConfig: config, MaxIdleConnsPerHost: 64}}, nil
}

// Dial connects to the API from the coordinator's machine, over TLS unless the cluster is open.
func (c *Cluster) Dial(ctx context.Context) (net.Conn, error) {
	config, err := c.tls()
	if err != nil {
		return nil, err
	}
	conn, err := c.lab.Machines[0].Dial(ctx, "tcp", c.Address())
	if err != nil || config == nil {
		return conn, err
	}
	config.ServerName = c.lab.Machines[0].Addr.String()
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secured, nil
}

// tls is nil where the cluster is open.
func (c *Cluster) tls() (*tls.Config, error) {
	if c.cfg.Insecure {
		return nil, nil
	}
	raw, err := os.ReadFile(filepath.Join(stateOf(c.lab.Machines[0]), authorityFile))
	if err != nil {
		return nil, fmt.Errorf("know the coordinator: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("know the coordinator: %s holds no certificate", authorityFile)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}, nil
}
