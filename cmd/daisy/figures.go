package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/daisy-llm/daisy/coordinator"
)

// byStage orders shards as a pass meets them; spares come last.
func byStage(shards []coordinator.ShardStatus) []coordinator.ShardStatus {
	place := func(s coordinator.ShardStatus) int {
		if s.Stage < 0 {
			return 1 << 30
		}
		return s.Stage
	}
	return slices.SortedStableFunc(slices.Values(shards), func(a, b coordinator.ShardStatus) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a.Name, b.Name))
	})
}

// figuresLine sums up an answer: what it took and, with shards, who computed it.
func figuresLine(f chatFigures, shards []coordinator.ShardStatus) string {
	parts := []string{fmt.Sprintf("%d prompt + %d generated tokens", f.PromptTokens, f.GeneratedTokens)}
	if rate := f.rate(); rate > 0 {
		parts = append(parts, fmt.Sprintf("%.1f tokens/s", rate))
	}
	line := strings.Join(parts, ", ")
	if len(shards) == 0 {
		return line
	}
	return line + ", " + shardsLine(shards)
}

// shardsLine says which shard holds which layers: "2 shards: a1 layers 0-14, a2 layers 15-29".
func shardsLine(shards []coordinator.ShardStatus) string {
	var held []string
	for _, s := range byStage(shards) {
		what := "layers " + layersOf(s)
		switch {
		case s.Stage < 0:
			what = "spare"
		case s.Last == s.First:
			what = "no layers"
		case s.Last-s.First == 1:
			what = fmt.Sprintf("layer %d", s.First)
		}
		held = append(held, printable(s.Name)+" "+what)
	}
	return fmt.Sprintf("%s: %s", count(len(shards), "shard"), strings.Join(held, ", "))
}

// count says how many: "1 shard", "3 shards".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
