package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// table writes Markdown row by row, so that what was measured stays, whatever comes next.
type table struct {
	w     io.Writer
	title string
	names []string
	begun bool
	err   error // the first of writing
}

func (t *table) row(cells ...string) {
	if !t.begun {
		t.begun = true
		t.printf("\n### %s\n\n| %s |\n|%s\n", t.title, strings.Join(t.names, " | "), strings.Repeat("---|", len(t.names)))
	}
	for len(cells) < len(t.names) {
		cells = append(cells, "")
	}
	for i, cell := range cells {
		cells[i] = strings.ReplaceAll(strings.Join(strings.Fields(cell), " "), "|", "\\|")
	}
	t.printf("| %s |\n", strings.Join(cells, " | "))
}

func (t *table) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(t.w, format, args...); err != nil && t.err == nil {
		t.err = err
	}
}

// median is the middle one, or the mean of the middle two; of none it is 0.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// medians of something about each element.
func medians[T any](all []T, of func(T) float64) float64 {
	var values []float64
	for _, v := range all {
		values = append(values, of(v))
	}
	return median(values)
}

func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func percent(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }

// verdict compares with what to reach.
func verdict(reached bool) string {
	if reached {
		return "yes"
	}
	return "**no**"
}
