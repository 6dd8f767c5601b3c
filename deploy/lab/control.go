//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/daisy-llm/daisy/deploy/lab/lab"
)

// reply is what the process with the lab answers.
type reply struct {
	Text  string `json:"text"`
	Error string `json:"error"`
}

const (
	maxRequest = 1 << 20
	patience   = 30 * time.Second // for a request to be done
)

func socket(id string) string { return filepath.Join(lab.DefaultDir, id, "control") }

// listen opens the way in for other processes; only root's get into the directory.
func listen(id string) (net.Listener, error) {
	listener, err := net.Listen("unix", socket(id))
	if err != nil {
		return nil, fmt.Errorf("listen for commands: %w", err)
	}
	return listener, nil
}

// serve does what other processes ask for until the context ends.
func (s *session) serve(ctx context.Context, listener net.Listener) error {
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listen for commands: %w", err)
		}
		s.answer(conn)
	}
}

// answer takes one request. They are few and quick, and one after the other is the easiest to understand.
func (s *session) answer(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	var args []string
	var r reply
	err := json.NewDecoder(io.LimitReader(conn, maxRequest)).Decode(&args)
	if err == nil {
		r.Text, err = s.do(args)
	}
	if err != nil {
		r.Error = err.Error()
	}
	// Whoever asked and left does not want to know.
	_ = json.NewEncoder(conn).Encode(r)
}

// theLab is the one that is meant: the one that runs, if no id says which.
func theLab(id string) (string, []lab.MachineRecord, error) {
	living, err := lab.Living(lab.DefaultDir)
	if err != nil {
		return "", nil, err
	}
	if id != "" {
		if machines, ok := living[id]; ok {
			return id, machines, nil
		}
		return "", nil, fmt.Errorf("lab %s does not run", id)
	}
	var ids []string
	for id := range living {
		ids = append(ids, id)
	}
	switch len(ids) {
	case 0:
		return "", nil, errors.New("no lab runs: start one with lab run or lab up")
	case 1:
		return ids[0], living[ids[0]], nil
	}
	return "", nil, fmt.Errorf("several labs run: say --lab %s", strings.Join(ids, " or "))
}

func newRemoteCommand(r remote) *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:   r.use,
		Short: r.short,
		Args:  cobra.MinimumNArgs(r.least),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, _, err := theLab(id)
			if err != nil {
				return err
			}
			text, err := ask(id, append([]string{cmd.Name()}, args...))
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
	if r.least == 0 {
		cmd.Args = cobra.NoArgs
	}
	cmd.Flags().StringVar(&id, "lab", "", "which lab, if several run")
	return cmd
}

func ask(id string, args []string) (string, error) {
	conn, err := net.DialTimeout("unix", socket(id), patience)
	if err != nil {
		return "", fmt.Errorf("reach lab %s: %w", id, err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if err := json.NewEncoder(conn).Encode(args); err != nil {
		return "", fmt.Errorf("reach lab %s: %w", id, err)
	}
	var r reply
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		return "", fmt.Errorf("lab %s does not answer: %w", id, err)
	}
	if r.Error != "" {
		return "", errors.New(r.Error)
	}
	return r.Text, nil
}

func newExecCommand() *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:   "exec MACHINE COMMAND [ARGUMENT...]",
		Short: "Run a command in a machine",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, machines, err := theLab(id)
			if err != nil {
				return err
			}
			for i, m := range machines {
				if m.Name != args[0] && fmt.Sprint(i) != args[0] {
					continue
				}
				command := exec.Command(args[1], args[2:]...)
				if command.Err != nil {
					return command.Err
				}
				return lab.Enter(m, command.Path, command.Args, command.Environ())
			}
			return fmt.Errorf("there is no machine %q: lab status names them", args[0])
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the machine is the command's own
	cmd.Flags().StringVar(&id, "lab", "", "which lab, if several run")
	return cmd
}

func newCleanCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "clean",
		Short: "Remove what is left of labs whose process was killed",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return lab.Clean(lab.DefaultDir) },
	}
}
