package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// programs are the two that are compared.
type programs struct {
	daisy   string // the binary
	llama   string // the folder of llama-bench and its kin
	measure runner // runs what is measured
	prefix  []string
}

// speed is what a program says of itself: tokens a second. 0 was not measured.
type speed struct {
	prompt, generate float64
	memory           float64 // GB/s that a plain reader reaches
	share            float64 // of it, that generating reaches
	weights          float64 // bytes that a token reads
}

// load is what to measure.
type load struct {
	model            string
	threads          int
	prompt, generate int // tokens; 0: not at all
}

func (l load) flags(names ...string) []string {
	return []string{names[0], l.model, names[1], strconv.Itoa(l.threads), names[2], strconv.Itoa(l.prompt), names[3], strconv.Itoa(l.generate)}
}

// bench measures Daisy once, after a warm-up.
func (p *programs) bench(ctx context.Context, l load) (speed, error) {
	out, err := p.run(ctx, append([]string{p.daisy, "bench", "--json", "--repetitions", "1"}, l.flags("--model", "--threads", "--prompt", "--generate")...))
	if err != nil {
		return speed{}, err
	}
	return daisySpeed(out, l)
}

// llamaBench measures llama.cpp once, after a warm-up.
func (p *programs) llamaBench(ctx context.Context, l load) (speed, error) {
	out, err := p.run(ctx, append([]string{p.program("llama-bench"), "-o", "jsonl", "-r", "1"}, l.flags("-m", "-t", "-p", "-n")...))
	if err != nil {
		return speed{}, err
	}
	return llamaSpeed(out, l)
}

// perplexities are those of Daisy and of llama.cpp.
func (p *programs) perplexities(ctx context.Context, model, text string) (daisy, llama float64, err error) {
	threads := strconv.Itoa(runtime.NumCPU())
	out, err := p.run(ctx, []string{p.daisy, "perplexity", "--model", model, "--context", "512", "--threads", threads, text})
	if err != nil {
		return 0, 0, err
	}
	if daisy, err = perplexity(out); err != nil {
		return 0, 0, fmt.Errorf("daisy perplexity: %w", err)
	}
	if out, err = p.run(ctx, []string{p.program("llama-perplexity"), "-m", model, "-c", "512", "-t", threads, "-f", text}); err != nil {
		return 0, 0, err
	}
	if llama, err = perplexity(out); err != nil {
		return 0, 0, fmt.Errorf("llama-perplexity: %w", err)
	}
	return daisy, llama, nil
}

// run returns standard output and then standard error: llama.cpp's tools write their figures to either.
func (p *programs) run(ctx context.Context, command []string) ([]byte, error) {
	out, errs, err := p.measure(ctx, append(append([]string(nil), p.prefix...), command...)...)
	return append(append(out, '\n'), errs...), err
}

// program is one of llama.cpp's.
func (p *programs) program(name string) string {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(p.llama, name)
}

// check says at the start what would be missed after an hour.
func (p *programs) check(names ...string) error {
	for _, name := range names {
		if info, err := os.Stat(p.program(name)); err != nil || info.IsDir() {
			return fmt.Errorf("--llama %s: there is no %s in it: name the folder of llama.cpp's programs", p.llama, name)
		}
	}
	return nil
}

// daisySpeed reads the lines of `daisy bench --json`.
func daisySpeed(out []byte, l load) (s speed, err error) {
	err = lines(out, func(line []byte) error {
		var r struct {
			Test            string  `json:"test"`
			TokensPerSecond float64 `json:"tokens_per_second"`
			Memory          float64 `json:"memory_gb_per_second"`
			Share           float64 `json:"memory_share"`
			Weights         float64 `json:"weight_bytes"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		switch r.Test {
		case fmt.Sprintf("pp%d", l.prompt):
			s.prompt = r.TokensPerSecond
		case fmt.Sprintf("tg%d", l.generate):
			s.generate, s.memory, s.share, s.weights = r.TokensPerSecond, r.Memory, r.Share, r.Weights
		}
		return nil
	})
	return s, complete("daisy bench", s, l, err)
}

// llamaSpeed reads the lines of `llama-bench -o jsonl`.
func llamaSpeed(out []byte, l load) (s speed, err error) {
	err = lines(out, func(line []byte) error {
		var r struct {
			Prompt          int     `json:"n_prompt"`
			Generate        int     `json:"n_gen"`
			TokensPerSecond float64 `json:"avg_ts"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		switch {
		case r.Generate == 0 && r.Prompt == l.prompt:
			s.prompt = r.TokensPerSecond
		case r.Prompt == 0 && r.Generate == l.generate:
			s.generate = r.TokensPerSecond
		}
		return nil
	})
	return s, complete("llama-bench", s, l, err)
}

// complete holds what was said against what was asked.
func complete(program string, s speed, l load, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", program, err)
	case l.prompt > 0 && !(s.prompt > 0):
		return fmt.Errorf("%s gives no speed of a prompt of %d tokens", program, l.prompt)
	case l.generate > 0 && !(s.generate > 0):
		return fmt.Errorf("%s gives no speed of generating %d tokens", program, l.generate)
	}
	return nil
}

// lines gives each JSON object that has a line of its own.
func lines(out []byte, use func(line []byte) error) error {
	scanner := bufio.NewScanner(bytes.NewReader(out))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		if line := scanner.Bytes(); bytes.HasPrefix(line, []byte("{")) {
			if err := use(line); err != nil {
				return fmt.Errorf("line %q: %w", line, err)
			}
		}
	}
	return scanner.Err()
}

var finalPerplexity = regexp.MustCompile(`(?m)\bPPL = ([0-9.]+)`)

// perplexity is the last figure that a program gives.
func perplexity(out []byte) (float64, error) {
	all := finalPerplexity.FindAllSubmatch(out, -1)
	if all == nil {
		return 0, fmt.Errorf("no perplexity in what it wrote: %q", strings.TrimSpace(string(out[max(0, len(out)-complaintBytes):])))
	}
	return strconv.ParseFloat(string(all[len(all)-1][1]), 64)
}
