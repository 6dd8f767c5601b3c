package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/daisy-llm/daisy/coordinator"
)

func newUpCommand(c *cli) *cobra.Command {
	var o localOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster on this machine and serve its API until Ctrl-C",
		Long: `Start a coordinator and shards on this machine and serve the OpenAI-compatible API until Ctrl-C.

Everything ends with this process, however it ends.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withCluster(cmd.Context(), o, func(ctx context.Context, l *localCluster, s coordinator.Status) error {
				if _, err := fmt.Fprint(c.out, readyText(dialable(l.address), s)); err != nil {
					return err
				}
				<-ctx.Done()
				return context.Cause(ctx)
			})
		},
	}
	o.bind(cmd, c.env, defaultCoordinator)
	return cmd
}

func readyText(address string, s coordinator.Status) string {
	return fmt.Sprintf(`Daisy is ready: http://%[1]s/v1 (%[2]s, %[3]s)

  curl http://%[1]s/v1/chat/completions -H 'Content-Type: application/json' \
    -d '{"model": "%[2]s", "messages": [{"role": "user", "content": "What is a daisy?"}]}'

  daisy status --coordinator %[1]s

Ctrl-C ends it.
`, address, printable(s.Model), shardsLine(s.Shards))
}
