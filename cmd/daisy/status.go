package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/daisy-llm/daisy/coordinator"
	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/model"
)

const defaultCoordinator = "127.0.0.1:8080"

func newStatusCommand(c *cli) *cobra.Command {
	var o clientOptions
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show a cluster: its shards and who holds which layers",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := o.client(c.env)
			if err != nil {
				return err
			}
			defer api.close()
			if asJSON {
				raw, err := api.rawStatus(cmd.Context())
				if err != nil {
					return err
				}
				return writeIndented(c.out, raw)
			}
			if watch {
				return watchStatus(cmd.Context(), c.out, api)
			}
			s, err := api.status(cmd.Context())
			if err != nil {
				return err
			}
			return writeStatus(c.out, s)
		},
	}
	o.bind(cmd, c.env)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the status as JSON")
	cmd.Flags().BoolVar(&watch, "watch", false, "print the status again whenever it has changed, until Ctrl-C")
	cmd.MarkFlagsMutuallyExclusive("json", "watch")
	return cmd
}

// watchEvery is how often a status that is watched is asked for.
const watchEvery = 200 * time.Millisecond

// watchStatus prints a status, with the time, whenever it has changed, until ctx ends. A coordinator that does not answer is
// a change as well: it may be restarted.
func watchStatus(ctx context.Context, w io.Writer, api *client) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	last := ""
	for {
		var b bytes.Buffer
		s, err := api.status(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			fmt.Fprintln(&b, printable(oneLine(err.Error())))
		} else if err := writeStatus(&b, s); err != nil {
			return err
		}
		if text := b.String(); text != last {
			last = text
			if _, err := fmt.Fprintf(w, "%s\n%s\n", time.Now().Format(time.TimeOnly), text); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// writeIndented prints JSON from elsewhere, once it is known to be JSON: its strings then hold no raw control characters.
func writeIndented(w io.Writer, raw []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(raw), "", "  "); err != nil {
		return fmt.Errorf("read the status: %w: is it a Daisy coordinator?", err)
	}
	b.WriteByte('\n')
	_, err := b.WriteTo(w)
	return err
}

func writeStatus(w io.Writer, s coordinator.Status) error {
	var b bytes.Buffer
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	line("coordinator", "%s, daisy %s", s.Coordinator, s.Version)
	if s.Detail == "" {
		line("state", "%s", s.State)
	} else {
		line("state", "%s: %s", s.State, oneLine(s.Detail))
	}
	line("model", "%s, %d layers, sha256 %s", s.Model, s.Layers, s.SHA256)
	line("context", "%d positions, %s cache", s.Context, s.CacheType)
	if s.Plan != "" {
		line("plan", "%s", s.Plan)
	}
	recovering := ""
	if s.Recovering > 0 {
		recovering = fmt.Sprintf(" (%d recovering)", s.Recovering)
	}
	line("generations", "%d running%s, %d waiting", s.Active, recovering, s.Waiting)
	b.WriteByte('\n')
	if len(s.Shards) == 0 {
		b.WriteString("No shard has joined yet: start one with `daisy shard --join HOST:PORT`.\n")
	} else {
		b.WriteString(rosterTable(s.Shards))
		b.WriteByte('\n')
	}
	_, err := b.WriteTo(w)
	return err
}

func rosterTable(shards []coordinator.ShardStatus) string {
	t := newTable("stage", "shard", "layers", "state", "memory", "planned", "without it", "cores", "pid", "address", "detail")
	for _, s := range byStage(shards) {
		stage := "-"
		if s.Stage >= 0 {
			stage = fmt.Sprint(s.Stage)
		}
		t.AppendRow(table.Row{
			stage, printable(s.Name), layersOf(s), printable(s.State), formatSize(s.Memory), formatSize(s.Planned), lossOf(s), s.Cores, s.PID,
			printable(s.Address), printable(oneLine(s.Detail)),
		})
	}
	t.SuppressEmptyColumns()
	return t.Render()
}

// lossOf says what it would mean to lose a shard that runs a stage.
func lossOf(s coordinator.ShardStatus) string {
	switch {
	case s.Stage < 0 || s.State != plan.Ready.String():
		return "-"
	case s.Missing > 0:
		return formatSize(s.Missing) + " missing"
	}
	return "survives"
}

// newTable is a plain table, for eyes and for awk: aligned columns, no frame.
func newTable(header ...any) table.Writer {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = text.FormatUpper
	t.SetStyle(style)
	t.AppendHeader(header)
	t.SuppressTrailingSpaces()
	return t
}

// layersOf is the block a shard holds, as people count; a shard that runs no stage holds none.
func layersOf(s coordinator.ShardStatus) string {
	return model.Layers{First: s.First, Last: s.Last}.String()
}
