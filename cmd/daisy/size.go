package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/daisy-llm/daisy/services/cluster"
)

// parseSize reads a size as people write it: 8GiB, 512 MiB, 1.5Gi; 4G and 4GB are powers of ten.
func parseSize(s string) (int64, error) {
	n, err := humanize.ParseBytes(strings.TrimSpace(s))
	if err != nil || n == 0 || n > math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size: write it like 8GiB or 512MiB", s)
	}
	return int64(n), nil
}

// parseSizes reads sizes between commas.
func parseSizes(s string) ([]int64, error) {
	var sizes []int64
	for field := range strings.SplitSeq(s, ",") {
		n, err := parseSize(field)
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}

// formatSize writes a size for people, in powers of two.
func formatSize(n int64) string {
	if n < 0 {
		return "-" + formatSize(-n)
	}
	return humanize.IBytesN(uint64(n), 3)
}

// memoryFor is what each of so many shards on this machine offers: what a flag says, else their share of what there is.
func memoryFor(flag string, shards int) (int64, error) {
	if flag == "" {
		memory, err := cluster.OfferedMemory(shards)
		if err != nil {
			return 0, fmt.Errorf("--memory: %w", err)
		}
		return memory, nil
	}
	memory, err := parseSize(flag)
	if err != nil {
		return 0, fmt.Errorf("--memory: %w", err)
	}
	if limit, err := cluster.MemoryLimit(); err == nil && memory > limit {
		return 0, fmt.Errorf("--memory %s: this machine, or the control group that this program runs in, has %s in all: leave the flag out to offer what is available",
			flag, formatSize(limit))
	}
	return memory, nil
}
