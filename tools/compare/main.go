package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, console io.Writer) error {
	o, err := parse(args, console)
	if err != nil {
		return err
	}
	begin := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(console, "compare: %6s  %s\n", time.Since(begin).Round(time.Second), fmt.Sprintf(format, args...))
	}
	p := &programs{daisy: filepath.Join(o.cache, "daisy"), llama: o.llama, measure: within(o.limit), prefix: strings.Fields(o.under)}
	if runtime.GOOS == "windows" {
		p.daisy += ".exe"
	}
	if err := p.check("llama-bench", "llama-perplexity", "llama-quantize"); err != nil {
		return err
	}
	if err := os.MkdirAll(o.cache, 0o777); err != nil {
		return err
	}
	say("building daisy")
	if _, _, err := p.measure(ctx, "go", "build", "-o", p.daisy, "github.com/daisy-llm/daisy/cmd/daisy"); err != nil {
		return err
	}
	version, _, err := p.measure(ctx, p.daisy, "version")
	if err != nil {
		return err
	}
	f := &files{dir: o.cache, given: o.given, daisy: p.daisy, llama: p.program("llama-quantize"), run: p.measure, say: say}
	c := &comparison{
		subjects: o.subjects, threads: o.threads, rounds: o.rounds, texts: o.texts,
		speed: slices.Contains(o.tests, testSpeed), beside: slices.Contains(o.tests, testBeside),
		daisy: p.bench, llama: p.llamaBench, perplexities: p.perplexities, file: f.of, out: out, say: say,
	}
	if !slices.Contains(o.tests, testPerplexity) {
		c.texts = nil
	}
	if _, err := fmt.Fprintf(out, "%s, %d cores, medians of %d rounds:\n\n```\n%s\n```\n",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), o.rounds, strings.TrimSpace(string(version))); err != nil {
		return err
	}
	return c.all(ctx)
}
