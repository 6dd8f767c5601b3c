package main

import (
	"fmt"
	"slices"
	"strings"
)

// subject is a model to compare with, and what Daisy is to reach: at least so many times llama.cpp's speed.
type subject struct {
	name, title string
	source      string // a name of Daisy's catalogue; or
	requantise  string // the name of the subject that llama-quantize makes this one of, as Q4_0; or
	like, typ   string // what daisy bench synth makes
	generate    int    // tokens: fewer where each takes long, and all take as long as the last
	generating  target
	prompt      target
	share       target // of the speed of memory
	text        bool   // its answers mean something: perplexity counts
}

// target is what to reach with one thread, and with several. 0: nothing.
type target struct{ one, several float64 }

func (t target) with(threads int) float64 {
	if threads == 1 {
		return t.one
	}
	return t.several
}

const (
	promptTokens    = 512
	maxDifference   = 0.005 // of perplexities
	minBesideOthers = 0.5   // of the undisturbed speed, with a busy competitor
	besideThreads   = 2
)

// subjects lists all, the small ones first.
func subjects() []subject {
	all := []subject{
		{name: "smollm2", title: "SmolLM2 135M, Q4_1", source: "smollm2", generate: 128,
			generating: target{2.4, 2.4}, prompt: target{8, 8}, text: true},
		{name: "smollm2-q4_0", title: "SmolLM2 135M, Q4_0", requantise: "smollm2", generate: 128,
			generating: target{1.9, 1.9}, prompt: target{2.5, 2.5}},
		{name: "gemma3", title: "Gemma 3 270M, Q4_K_M", source: "gemma3", generate: 128,
			generating: target{1.6, 1.6}, prompt: target{3, 3}, text: true},
	}
	for _, size := range []struct {
		like     string
		generate int
		share    target
	}{{"1b", 64, target{}}, {"7b", 32, target{0.90, 0.85}}} {
		for _, typ := range []string{"q4_0", "q4_k", "q8_0"} {
			all = append(all, subject{
				name: size.like + "-" + typ, title: strings.ToUpper(size.like + ", " + typ), like: size.like, typ: typ,
				generate: size.generate, generating: target{1.5, 1.1}, prompt: target{1.4, 1.4}, share: size.share,
			})
		}
	}
	return all
}

// choose keeps the subjects that are asked for, by their name or what it begins with. "smollm2" is a whole name and the
// beginning of another: both are meant.
func choose(all []subject, only []string) ([]subject, error) {
	if len(only) == 0 {
		return all, nil
	}
	var names []string
	for _, s := range all {
		names = append(names, s.name)
	}
	for _, prefix := range only {
		if prefix == "" || !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, prefix) }) {
			return nil, fmt.Errorf("--only %q: use some of %s, or what they begin with", prefix, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(all, func(s subject) bool {
		return !slices.ContainsFunc(only, func(prefix string) bool { return strings.HasPrefix(s.name, prefix) })
	}), nil
}
