//go:build linux

package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
)

// beside is what a shard may take besides its block: the program's own pages, a small Go heap, and no tokenizer.
const beside = 30 << 20

// A shard takes what the plan says of its block, and little more: when it has loaded it and been used, and at its peak, which
// is while it loads. Nor does the plan ask for much more than that.
func TestMemory(t *testing.T) {
	c := up(t, 3, "--context", "256", "--parallel", "1", "--threads", "2")
	prompt := make([]int, 200)
	for i := range prompt {
		prompt[i] = 100 + i
	}
	if _, err := c.complete(map[string]any{"prompt": prompt, "temperature": 0, "max_tokens": 20, "ignore_eos": true}); err != nil {
		t.Fatal(err)
	}
	s := c.status(t)
	if len(s.Shards) != 3 {
		t.Fatalf("%d shards", len(s.Shards))
	}
	for _, shard := range s.Shards {
		resident := kilobytes(t, shard.PID, "smaps_rollup", "Rss")
		own := kilobytes(t, shard.PID, "smaps_rollup", "Anonymous")
		peak := kilobytes(t, shard.PID, "status", "VmHWM")
		t.Logf("%s, layers [%d, %d): planned %d MiB, resident %d, of its own %d, at its peak %d",
			shard.Name, shard.First, shard.Last, shard.Planned>>20, resident>>20, own>>20, peak>>20)
		if resident > shard.Planned+beside {
			t.Errorf("%s takes %d MiB, planned were %d", shard.Name, resident>>20, shard.Planned>>20)
		}
		if peak > shard.Planned+beside {
			t.Errorf("%s took %d MiB while it loaded, planned were %d", shard.Name, peak>>20, shard.Planned>>20)
		}
		if own < shard.Planned*3/4 {
			t.Errorf("%s takes %d MiB of its own, planned were %d: the plan wastes memory", shard.Name, own>>20, shard.Planned>>20)
		}
	}
	c.end(t)
}

// kilobytes reads a number of kB from a file of /proc, as bytes.
func kilobytes(t *testing.T, pid int, file, name string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+) kB$`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("%s says nothing of %s:\n%s", file, name, text)
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}
