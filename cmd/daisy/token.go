package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/daisy-llm/daisy/services/trust"
)

const defaultTokenTTL = 24 * time.Hour

func newTokenCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke the tokens with which processes join a secured cluster",
		Long: `Make, list and revoke the tokens with which processes join a secured cluster.

These commands work on the state folder of the coordinator that has the cluster's authority, on its machine, whether it
runs or not, and take effect at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	dir := cmd.PersistentFlags().String("state-dir", c.env.stateDir, "`FOLDER` of the coordinator (default: the only one there is below daisy in the user's configuration folder)")
	open := func() (*trust.Authority, error) {
		folder, err := authorityFolder(*dir)
		if err != nil {
			return nil, err
		}
		return trust.OpenAuthority(folder, trust.AuthorityConfig{})
	}

	var role string
	var ttl time.Duration
	create := &cobra.Command{
		Use:   "create",
		Short: "Make a token and print it",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			r, err := trust.ParseRole(role)
			if err != nil {
				return fmt.Errorf("--role: %w", err)
			}
			authority, err := open()
			if err != nil {
				return err
			}
			token, err := authority.CreateToken(r, ttl)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.out, token.Reveal())
			return err
		},
	}
	create.Flags().StringVar(&role, "role", "shard", "what a process that has it may be: shard, or coordinator, which commands shards")
	create.Flags().DurationVar(&ttl, "ttl", defaultTokenTTL, "how long it lets processes join")

	list := &cobra.Command{
		Use:   "list",
		Short: "List the tokens, without their secrets",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			authority, err := open()
			if err != nil {
				return err
			}
			tokens, err := authority.Tokens()
			if err != nil {
				return err
			}
			if len(tokens) == 0 {
				_, err := fmt.Fprintln(c.out, "No tokens: make one with daisy token create.")
				return err
			}
			t := newTable("id", "role", "state", "created", "expires")
			for _, e := range tokens {
				t.AppendRow(table.Row{e.ID, e.Role, e.State(time.Now()), e.Created.Format(time.RFC3339), e.Expires.Format(time.RFC3339)})
			}
			_, err = fmt.Fprintln(c.out, t.Render())
			return err
		},
	}

	revoke := &cobra.Command{
		Use:   "revoke ID...",
		Short: "Make tokens worthless, at once; processes that have joined stay",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, ids []string) error {
			authority, err := open()
			if err != nil {
				return err
			}
			for _, id := range ids {
				if err := authority.Revoke(id); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.AddCommand(create, list, revoke)
	return cmd
}

// authorityFolder is the coordinator's state folder: the one asked for, or the only one there is.
func authorityFolder(asked string) (string, error) {
	if asked != "" {
		return filepath.Abs(asked)
	}
	base, err := stateBase()
	if err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(base, "coordinator-*", trust.AuthorityFile))
	if err != nil {
		return "", err
	}
	var folders []string
	for _, file := range found {
		folders = append(folders, filepath.Dir(file))
	}
	switch len(folders) {
	case 0:
		return "", fmt.Errorf("there is no coordinator's state below %s: start a coordinator beyond loopback, or give --state-dir", base)
	case 1:
		return folders[0], nil
	}
	return "", errors.New("there are several coordinators: give --state-dir, one of " + strings.Join(folders, ", "))
}
