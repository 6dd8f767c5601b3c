//go:build linux

// Command lab makes several machines out of one, runs a Daisy cluster or anything else in them, and breaks them on request. It needs root.
//
//	go run ./deploy/lab run --shards 3 --memory 1GiB --cpu 0.4 --rate 1gbit --delay 5ms
//
// runs until Ctrl-C, and says how to reach the cluster. From another terminal:
//
//	go run ./deploy/lab status
//	go run ./deploy/lab kill shard2
//	go run ./deploy/lab partition shard1,shard2 shard3
//
// It owns the flags and what is said to people; package deploy/lab/lab makes the machines. One lab does all of this in one process, which serves the
// other commands through a socket in the lab's own directory. It refuses what it does not understand before it touches anything.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := newRootCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "lab",
		Short:         "Several machines on one: networks, links and limits of their own, broken on request",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newUpCommand(), newRunCommand(), newExecCommand(), newCleanCommand())
	for _, c := range remotes() {
		root.AddCommand(newRemoteCommand(c))
	}
	return root
}
