package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// cli is what the commands share.
type cli struct {
	in, out *os.File
	console *console // stderr
	env     environment
	signals *signals

	logLevel  string
	logFormat string
	log       *slog.Logger // set before a command runs
}

func newRootCommand(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:           "daisy",
		Short:         "Daisy serves a language model from a chain of ordinary machines",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if c.logLevel == "" {
				c.logLevel = "info"
				if cmd.Name() == "run" || cmd.Name() == "bench" { // the answer, or the figures, are what matters
					c.logLevel = "warn"
				}
			}
			return c.openLog()
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(c.out)
	root.SetErr(c.console)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&c.logLevel, "log-level", "", "debug, info, warn or error (default: warn for run and bench, else info)")
	f.StringVar(&c.logFormat, "log-format", "text", "text or json")
	f.StringVar(&c.env.cacheDir, "cache-dir", c.env.cacheDir, "where models are kept (default: daisy in the user's cache folder)")
	root.AddCommand(
		newRunCommand(c), untilInterrupted(newUpCommand(c)), newStatusCommand(c), newPlanCommand(c), newPullCommand(c), newModelsCommand(c),
		untilInterrupted(newCoordinatorCommand(c)), untilInterrupted(newShardCommand(c)), newTokenCommand(c),
		newBenchCommand(c), newPerplexityCommand(c), newVersionCommand(c),
	)
	return root
}

// untilInterrupted is for commands that serve until a signal ends them: that is no error of theirs.
func untilInterrupted(cmd *cobra.Command) *cobra.Command {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		if errors.Is(context.Cause(cmd.Context()), errInterrupted) && (errors.Is(err, context.Canceled) || errors.Is(err, errInterrupted)) {
			return nil
		}
		return err
	}
	return cmd
}

// openLog makes the logger that the flags ask for.
func (c *cli) openLog() error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.logLevel)); err != nil || strings.ContainsAny(c.logLevel, "+-") {
		return fmt.Errorf("--log-level %q is not known: use debug, info, warn or error", c.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch c.logFormat {
	case "text":
		c.log = slog.New(slog.NewTextHandler(c.console, options))
	case "json":
		c.log = slog.New(slog.NewJSONHandler(c.console, options))
	default:
		return fmt.Errorf("--log-format %q is not known: use text or json", c.logFormat)
	}
	return nil
}
