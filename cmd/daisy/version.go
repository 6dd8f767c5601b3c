package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/pass"
)

func newVersionCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version, and what this machine offers",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			set, err := selectKernels(c.env.kernels)
			if err != nil {
				return err
			}
			var available []string
			for _, s := range kernel.Sets() {
				available = append(available, s.Name)
			}
			memory := "unknown"
			if n, err := memoryFor("", 1); err == nil {
				memory = formatSize(n)
			}
			_, err = fmt.Fprintf(c.out, `daisy     %s
go        %s %s/%s
protocol  %d
numerics  %d
kernels   %s (available: %s)
cores     %d
memory    %s on offer
`, buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH, pass.Protocol, pass.Numerics,
				set.Name, strings.Join(available, ", "), runtime.GOMAXPROCS(0), memory)
			return err
		},
	}
}

// selectKernels finds kernels by their name; the fastest, if none is named.
func selectKernels(name string) (*kernel.Set, error) {
	if name == "" {
		return kernel.Best(), nil
	}
	set, err := kernel.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("--kernels or DAISY_KERNELS: %w", err)
	}
	return set, nil
}

// buildVersion is the module's version, or that and the commit where it was built from a checkout.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version, commit, changed := info.Main.Version, "", ""
	if version == "" {
		version = "(devel)"
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = ", changed"
		}
	}
	if commit == "" {
		return version
	}
	return fmt.Sprintf("%s (commit %s%s)", version, commit, changed)
}
