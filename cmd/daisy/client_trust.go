package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/daisy-llm/daisy/services/trust"
)

// clientTrust is how a command knows that a coordinator is the one it means.
type clientTrust struct {
	token       trust.Token
	authorities []*x509.Certificate
}

// clientOptions are the flags of commands that talk to a coordinator.
type clientOptions struct {
	Address string
	trust   trustOptions
}

func (o *clientOptions) bind(cmd *cobra.Command, env environment) {
	f := cmd.Flags()
	f.StringVar(&o.Address, "coordinator", defaultCoordinator, "`HOST:PORT` of the coordinator, or its URL; beyond loopback https:// is meant")
	f.StringVar(&o.trust.StateDir, "state-dir", env.stateDir, "`FOLDER` of a coordinator or shard of the cluster on this machine, or one with its authority.pem (default: all there are below daisy in the user's configuration folder)")
	f.Var(&o.trust.Token, "token", "a `TOKEN` of the cluster, as another way to know it (better: --token-file or DAISY_TOKEN)")
	f.StringVar(&o.trust.TokenFile, "token-file", "", "`FILE` that holds the token")
}

// client makes the client that the flags ask for.
func (o *clientOptions) client(env environment) (*client, error) {
	token, err := o.trust.token(env)
	if err != nil {
		return nil, err
	}
	authorities, err := knownAuthorities(o.trust.StateDir)
	if err != nil {
		return nil, err
	}
	return newClient(o.Address, clientTrust{token, authorities})
}

// knownAuthorities are those of the clusters that this user's processes on this machine belong to, or of the one in a folder.
func knownAuthorities(dir string) (known []*x509.Certificate, err error) {
	if dir != "" {
		return trust.ReadAuthorities(dir)
	}
	base, err := stateBase()
	if err != nil {
		return nil, nil // there are none, then
	}
	files, _ := filepath.Glob(filepath.Join(base, "*", trust.AuthorityFile))
	for _, file := range files {
		more, err := trust.ReadAuthorities(filepath.Dir(file))
		if err == nil { // others may be damaged: they are not asked for
			known = append(known, more...)
		}
	}
	return known, nil
}

func (t clientTrust) config() *tls.Config {
	c := trust.ClientConfig(t.authorities, t.token)
	c.NextProtos = []string{"http/1.1"}
	return c
}

// explain says what to do about a coordinator that is not trusted, or speaks otherwise than expected.
func (t clientTrust) explain(address string, err error) error {
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &record):
		return fmt.Errorf("%s does not speak TLS: if its cluster runs with --insecure, write http://%s", address, address)
	case errors.Is(err, trust.ErrNotTrusted):
		hint := "give --state-dir of a process of its cluster, or --token"
		if t.token.IsZero() && len(t.authorities) == 0 {
			hint = "nothing here says which cluster that should be: " + hint
		}
		return fmt.Errorf("%s is not trusted: %w: %s", address, err, hint)
	}
	return err
}
