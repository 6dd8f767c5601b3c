package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// besides fills the table of what a busy competitor leaves: a loop that keeps one core busy, in this process.
func (c *comparison) besides(ctx context.Context) error {
	s := c.subjects[0]
	path, err := c.file(ctx, s)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	l := load{model: path, threads: besideThreads, generate: s.generate}
	var alone, beside []pair
	for round := range c.rounds {
		undisturbed, err := c.pair(ctx, l, round)
		if err != nil {
			return err
		}
		end := competitor()
		disturbed, err := c.pair(ctx, l, round)
		end()
		if err != nil {
			return err
		}
		alone, beside = append(alone, undisturbed), append(beside, disturbed)
		c.say("%s beside a busy loop, round %d of %d: %s and %s, of %s and %s", s.name, round+1, c.rounds, number(disturbed.daisy.generate),
			number(disturbed.llama.generate), number(undisturbed.daisy.generate), number(undisturbed.llama.generate))
	}
	t := &table{w: c.out, title: fmt.Sprintf("Generating %d with %d threads beside one busy loop: %s", s.generate, besideThreads, s.title),
		names: []string{"program", "alone", "beside it", "keeps", "at least", "reached"}}
	row := func(program string, of func(pair) speed, least float64) {
		kept := make([]float64, len(alone))
		for i := range alone {
			kept[i] = of(beside[i]).generate / of(alone[i]).generate
		}
		share, cells := median(kept), []string{"", ""}
		if least > 0 {
			cells = []string{percent(least), verdict(share >= least)}
		}
		t.row(append([]string{program, number(medians(alone, func(p pair) float64 { return of(p).generate })),
			number(medians(beside, func(p pair) float64 { return of(p).generate })), percent(share)}, cells...)...)
	}
	row("Daisy", func(p pair) speed { return p.daisy }, minBesideOthers)
	row("llama.cpp", func(p pair) speed { return p.llama }, 0)
	return t.err
}

// competitor keeps a core busy until it is ended.
func competitor() (end func()) {
	var ended atomic.Bool
	var loop sync.WaitGroup
	loop.Go(func() {
		for !ended.Load() {
		}
	})
	return func() {
		ended.Store(true)
		loop.Wait()
	}
}
