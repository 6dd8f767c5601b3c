package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/model"
)

// planOptions are the flags of `plan`.
type planOptions struct {
	Model   string
	Memory  string
	Speed   string
	asJSON  bool
	sizing  shapeOptions
	members plan.Roster
}

func newPlanCommand(c *cli) *cobra.Command {
	var o planOptions
	cmd := &cobra.Command{
		Use:     "plan",
		Short:   "Show which machine would hold which layers, without starting anything",
		Example: "  daisy plan --model smollm2 --memory 8GiB,8GiB,4GiB",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.makeMembers(); err != nil {
				return err
			}
			if o.sizing.Threads < 1 {
				return fmt.Errorf("--threads %d: use 1 or more", o.sizing.Threads)
			}
			store, err := c.store()
			if err != nil {
				return err
			}
			local, err := c.resolve(cmd.Context(), store, o.Model)
			if err != nil {
				return err
			}
			_, shape, err := measureModel(local.Name, local.Path, o.sizing)
			if err != nil {
				return err
			}
			p, err := plan.Solve(o.members, shape, nil, plan.Options{Leader: "plan"})
			if err != nil {
				return advise(err)
			}
			losses, err := plan.Headroom(p, o.members, shape)
			if err != nil {
				return err
			}
			view := viewPlan(p, o.members, shape, losses)
			view.SHA256, view.CacheType = local.SHA256, o.sizing.CacheType
			if o.asJSON {
				e := json.NewEncoder(c.out)
				e.SetIndent("", "  ")
				return e.Encode(view)
			}
			return view.write(c.out)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.Model, "model", "m", defaultModel(), "a `NAME` of the catalogue, a file, or a source")
	f.StringVar(&o.Memory, "memory", "", "memory of each machine, between commas, such as 8GiB,8GiB,4GiB (required)")
	f.StringVar(&o.Speed, "speed", "", "speed at which each machine reads its memory, in GB/s, between commas, such as 40,40,20 (default: all alike)")
	f.IntVarP(&o.sizing.Context, "context", "c", 0, contextUsage)
	f.IntVar(&o.sizing.Parallel, "parallel", defaultParallel, "sequences that are cached at once")
	f.StringVar(&o.sizing.CacheType, "cache-type", "f16", "how keys and values are kept: f16 or f32")
	f.IntVarP(&o.sizing.Threads, "threads", "t", runtime.GOMAXPROCS(0), "threads of each shard")
	f.BoolVar(&o.asJSON, "json", false, "print the plan as JSON")
	return cmd
}

// makeMembers makes up machines as the flags describe them.
func (o *planOptions) makeMembers() error {
	if o.Memory == "" {
		return fmt.Errorf("--memory is missing: say what each machine has, such as --memory 8GiB,8GiB,4GiB")
	}
	sizes, err := parseSizes(o.Memory)
	if err != nil {
		return fmt.Errorf("--memory: %w", err)
	}
	if len(sizes) > maxLocalShards {
		return fmt.Errorf("--memory: %d machines, more than %d", len(sizes), maxLocalShards)
	}
	speeds := make([]float64, len(sizes))
	if o.Speed != "" {
		fields := strings.Split(o.Speed, ",")
		if len(fields) != len(sizes) {
			return fmt.Errorf("--speed: %s, but %d in --memory", count(len(fields), "machine"), len(sizes))
		}
		for i, field := range fields {
			speeds[i], err = strconv.ParseFloat(strings.TrimSpace(field), 64)
			if err != nil || !(speeds[i] > 0 && speeds[i] < 1e6) {
				return fmt.Errorf("--speed: %q is not a speed in GB/s", field)
			}
		}
	}
	var members []plan.Member
	for i, size := range sizes {
		members = append(members, plan.Member{Name: shardName(i), Role: plan.Shard, Memory: size, Speed: speeds[i]})
	}
	o.members = plan.NewRoster(members...)
	return nil
}

// planView is a plan as people and tools read it.
type planView struct {
	Model     string      `json:"model"`
	SHA256    string      `json:"sha256"`
	Layers    int         `json:"layers"`
	Context   int         `json:"context"`
	Parallel  int         `json:"parallel"`
	CacheType string      `json:"cache_type"`
	Stages    []stageView `json:"stages"`
	Spares    []string    `json:"spares"`
	Losses    []lossView  `json:"losses"`
}

// stageView is one place in the pipeline; sizes are bytes.
type stageView struct {
	Shard   string           `json:"shard"`
	First   model.LayerIndex `json:"first"`
	Last    model.LayerIndex `json:"last"`
	Weights int64            `json:"weights"`
	Cache   int64            `json:"cache"`
	Scratch int64            `json:"scratch"`
	Memory  int64            `json:"memory"` // the three together
	Offered int64            `json:"offered"`
	Mapped  int64            `json:"mapped"`
}

// lossView says what the loss of one shard would mean.
type lossView struct {
	Shard      string `json:"shard"`
	Survivable bool   `json:"survivable"`
	Missing    int64  `json:"missing"`
}

func viewPlan(p *plan.Plan, roster plan.Roster, shape plan.Shape, losses []plan.Loss) planView {
	v := planView{
		Model: p.Model, Layers: p.Layers, Context: shape.Context, Parallel: shape.Parallel,
		Stages: []stageView{}, Spares: append([]string{}, p.Spares...), Losses: []lossView{},
	}
	for _, s := range p.Pipelines[0] {
		member, _ := roster.Find(s.Shard)
		v.Stages = append(v.Stages, stageView{
			Shard: s.Shard, First: s.Layers.First, Last: s.Layers.Last, Weights: s.Weights, Cache: s.Cache, Scratch: s.Scratch,
			Memory: s.Memory(), Offered: member.Memory, Mapped: s.Mapped,
		})
	}
	for _, l := range losses {
		v.Losses = append(v.Losses, lossView{Shard: l.Shard, Survivable: l.Survivable(), Missing: l.Missing})
	}
	return v
}

func (v planView) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "model    %s, %d layers, sha256 %s\n", printable(v.Model), v.Layers, v.SHA256)
	fmt.Fprintf(&b, "context  %d positions for %s, %s cache\n\n", v.Context, count(v.Parallel, "sequence"), v.CacheType)
	t := newTable("stage", "shard", "layers", "weights", "cache", "buffers", "memory", "of")
	for i, s := range v.Stages {
		t.AppendRow(table.Row{
			fmt.Sprint(i), s.Shard, model.Layers{First: s.First, Last: s.Last}, formatSize(s.Weights), formatSize(s.Cache), formatSize(s.Scratch),
			formatSize(s.Memory), formatSize(s.Offered),
		})
	}
	b.WriteString(t.Render())
	b.WriteString("\n\n")
	if len(v.Spares) > 0 {
		fmt.Fprintf(&b, "spare: %s\n", strings.Join(v.Spares, ", "))
	}
	for _, l := range v.Losses {
		if l.Survivable {
			fmt.Fprintf(&b, "without %s: the others could hold the model\n", l.Shard)
		} else {
			fmt.Fprintf(&b, "without %s: %s would be missing\n", l.Shard, formatSize(l.Missing))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
