//go:build linux

package e2e

import (
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// `daisy run` gives the answer on stdout, the figures on stderr, and leaves nothing; however many shards.
func TestRun(t *testing.T) {
	const prompt = "What is a daisy?"
	want := ""
	for shards, figures := range map[string]string{
		"1": `^\d+ prompt \+ \d+ generated tokens, [\d.]+ tokens/s, 1 shard: a1 layers 0-29$`,
		"2": `^\d+ prompt \+ \d+ generated tokens, [\d.]+ tokens/s, 2 shards: a\d layers 0-\d+, a\d layers? [\d-]+$`,
		"3": `^\d+ prompt \+ \d+ generated tokens, [\d.]+ tokens/s, 3 shards: a\d layers 0-\d+, a\d layers [\d-]+, a\d layers? [\d-]+$`,
	} {
		stdout, stderr, code := daisy(t, "run", "--shards", shards, "--max-tokens", "80", prompt)
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		if last := lines[len(lines)-1]; code != 0 || !regexp.MustCompile(figures).MatchString(last) {
			t.Errorf("%s shards: exit code %d, figures %q", shards, code, last)
		}
		if want == "" {
			want = stdout
		}
		if stdout != want || !strings.Contains(stdout, "flower") || !strings.HasSuffix(stdout, "\n") {
			t.Errorf("%s shards: %q, with others %q", shards, stdout, want)
		}
	}
}

func TestRunReadsItsPromptFromAPipe(t *testing.T) {
	p := newProcess(t, "run", "--shards", "2", "--max-tokens", "20", "--temperature", "0.7", "--top-k", "50", "--top-p", "0.9", "--min-p", "0.01",
		"--seed", "3", "--system", "You speak Chinese.", "--threads", "1", "--context", "512", "--cache-type", "f32")
	p.cmd.Stdin = strings.NewReader("你好！\n")
	p.run(t)
	if code := p.finish(t); code != 0 || strings.TrimSpace(p.stdout.String()) == "" {
		t.Errorf("exit code %d, answer %q", code, p.stdout)
	}
}

func TestRunStopsAtCtrlC(t *testing.T) {
	p := start(t, "run", "--shards", "2", "--max-tokens", "4000", "Write the longest story that you can.")
	waitFor(t, "the answer to begin", func() bool { return p.stdout.String() != "" })
	p.signal(t, syscall.SIGINT)
	if code := p.finish(t); code != 130 {
		t.Errorf("exit code %d", code)
	}
}
