package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// comparison is what to do, and with what.
type comparison struct {
	subjects []subject
	threads  []int
	rounds   int
	texts    []text
	speed    bool
	beside   bool // a busy loop

	daisy, llama func(ctx context.Context, l load) (speed, error)
	perplexities func(ctx context.Context, model, text string) (daisy, llama float64, err error)
	file         func(ctx context.Context, s subject) (string, error)
	out          io.Writer
	say          func(format string, args ...any)
}

// text is what perplexity is measured on.
type text struct{ language, path string }

// pair is what both programs did in a round.
type pair struct{ daisy, llama speed }

// all measures everything, table by table. What fails is told at the end; only an end of ctx ends it before.
func (c *comparison) all(ctx context.Context) error {
	var steps []func(ctx context.Context) error
	if c.speed {
		steps = append(steps, c.speeds)
	}
	if c.beside {
		steps = append(steps, c.besides)
	}
	if len(c.texts) > 0 {
		steps = append(steps, c.texted)
	}
	var errs []error
	for _, step := range steps {
		if errs = append(errs, step(ctx)); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return errors.Join(errs...)
}

// speeds fills the table of speeds, and that of memory after it.
func (c *comparison) speeds(ctx context.Context) error {
	speeds := &table{w: c.out, title: "Tokens a second", names: []string{
		"model", "test", "threads", "Daisy", "llama.cpp", "ratio", "at least", "reached", "ratio at the speed of memory"}}
	memory := &table{w: c.out, title: "Memory", names: []string{
		"model", "threads", "plain reader, GB/s", "weights of a token, GB", "share that generating reaches", "at least", "reached"}}
	type measured struct {
		subject
		threads int
		pairs   []pair
	}
	var (
		errs []error
		done []measured
	)
	for _, s := range c.subjects {
		path, err := c.file(ctx, s)
		for _, threads := range c.threads {
			var pairs []pair
			if err == nil {
				pairs, err = c.pairs(ctx, s, load{model: path, threads: threads, prompt: promptTokens, generate: s.generate})
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				speeds.row(s.title, "failed", fmt.Sprint(threads))
				errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
				break
			}
			writeSpeed(speeds, s, threads, pairs)
			done = append(done, measured{s, threads, pairs})
		}
	}
	for _, m := range done {
		share := medians(m.pairs, func(p pair) float64 { return p.daisy.share })
		if least := m.share.with(m.threads); least > 0 {
			memory.row(m.title, fmt.Sprint(m.threads), number(medians(m.pairs, func(p pair) float64 { return p.daisy.memory })),
				fmt.Sprintf("%.3f", m.pairs[0].daisy.weights/1e9), percent(share), percent(least), verdict(share >= least))
		}
	}
	return errors.Join(append(errs, speeds.err, memory.err)...)
}

// writeSpeed writes the two rows of a model.
func writeSpeed(t *table, s subject, threads int, pairs []pair) {
	row := func(test string, least target, of func(speed) float64, limit string) {
		ratio := medians(pairs, func(p pair) float64 { return of(p.daisy) / of(p.llama) })
		t.row(s.title, test, fmt.Sprint(threads), number(medians(pairs, func(p pair) float64 { return of(p.daisy) })),
			number(medians(pairs, func(p pair) float64 { return of(p.llama) })), fmt.Sprintf("%.2f", ratio),
			number(least.with(threads)), verdict(ratio >= least.with(threads)), limit)
	}
	// A program that read each weight as fast as a plain reader does would reach this many times llama.cpp's speed.
	limit := medians(pairs, func(p pair) float64 { return p.daisy.memory * 1e9 / p.daisy.weights / p.llama.generate })
	said := ""
	if limit > 0 && !math.IsInf(limit, 0) {
		said = fmt.Sprintf("%.2f", limit)
	}
	row(fmt.Sprintf("generate %d", s.generate), s.generating, func(v speed) float64 { return v.generate }, said)
	row(fmt.Sprintf("prompt %d", promptTokens), s.prompt, func(v speed) float64 { return v.prompt }, "")
}

// pairs measures both programs in turn, round by round.
func (c *comparison) pairs(ctx context.Context, s subject, l load) (pairs []pair, err error) {
	for round := range c.rounds {
		begin := time.Now()
		p, err := c.pair(ctx, l, round)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, p)
		c.say("%s, threads %d, round %d of %d, %s: generate %s and %s, prompt %s and %s", s.name, l.threads, round+1, c.rounds,
			time.Since(begin).Round(time.Second), number(p.daisy.generate), number(p.llama.generate), number(p.daisy.prompt), number(p.llama.prompt))
	}
	return pairs, nil
}

// pair measures both once. They take turns in beginning.
func (c *comparison) pair(ctx context.Context, l load, round int) (p pair, err error) {
	if round%2 == 1 {
		if p.llama, err = c.llama(ctx, l); err != nil {
			return p, err
		}
	}
	if p.daisy, err = c.daisy(ctx, l); err != nil {
		return p, err
	}
	if round%2 == 0 {
		p.llama, err = c.llama(ctx, l)
	}
	return p, err
}

// texted fills the table of perplexities.
func (c *comparison) texted(ctx context.Context) error {
	t := &table{w: c.out, title: "Perplexity", names: []string{"model", "text", "Daisy", "llama.cpp", "difference", "at most", "reached"}}
	var errs []error
	for _, s := range c.subjects {
		if !s.text {
			continue
		}
		path, err := c.file(ctx, s)
		for _, text := range c.texts {
			var daisy, llama float64
			if err == nil {
				daisy, llama, err = c.perplexities(ctx, path, text.path)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				t.row(s.title, text.language, "failed")
				errs = append(errs, fmt.Errorf("%s, %s: %w", s.name, text.language, err))
				continue
			}
			difference := daisy/llama - 1
			c.say("%s, %s: perplexity %.4f and %.4f", s.name, text.language, daisy, llama)
			t.row(s.title, text.language, fmt.Sprintf("%.3f", daisy), fmt.Sprintf("%.3f", llama), fmt.Sprintf("%+.2f %%", 100*difference),
				fmt.Sprintf("±%.1f %%", 100*maxDifference), verdict(math.Abs(difference) <= maxDifference))
		}
	}
	return errors.Join(append(errs, t.err)...)
}
