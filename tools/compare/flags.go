package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	testSpeed      = "speed"
	testBeside     = "beside"
	testPerplexity = "perplexity"

	maxRounds  = 100
	maxThreads = 256
)

// options are the flags, checked.
type options struct {
	llama    string
	cache    string
	given    map[string]string
	subjects []subject
	tests    []string
	threads  []int
	rounds   int
	texts    []text
	under    string
	limit    time.Duration
}

func parse(args []string, console io.Writer) (*options, error) {
	o := &options{given: make(map[string]string)}
	var only, tests, threads, english, chinese string
	f := flag.NewFlagSet("compare", flag.ContinueOnError)
	f.SetOutput(console)
	f.Usage = func() {
		fmt.Fprint(console, `Measure Daisy beside llama.cpp on this machine, and write tables in Markdown to standard output.

usage: go run ./tools/compare --llama DIR [flags]

Models that are not given are fetched or made, and kept: 18 GB for all of them. Their names:
`)
		for _, s := range subjects() {
			fmt.Fprintf(console, "  %-13s %s\n", s.name, s.title)
		}
		fmt.Fprintln(console)
		f.PrintDefaults()
	}
	f.StringVar(&o.llama, "llama", "", "the `folder` of llama-bench, llama-perplexity and llama-quantize")
	f.StringVar(&o.cache, "cache", "", "the `folder` for the models that are made, and for the binary (default: daisy-compare in the user's cache)")
	f.Func("model", "measure a model with this file, `NAME=FILE.gguf`; may be repeated", func(v string) error { return give(o.given, v) })
	f.StringVar(&only, "only", "", "`names` of the models to measure, or what they begin with, between commas (default: all)")
	f.StringVar(&tests, "tests", "speed,beside,perplexity", "what to measure: any of these `tests`")
	f.StringVar(&threads, "threads", "1,2", "`numbers` of threads, between commas")
	f.IntVar(&o.rounds, "rounds", 5, "how often to measure each; the median counts")
	f.StringVar(&english, "english", "", "an English text `file` for perplexity")
	f.StringVar(&chinese, "chinese", "", "a Chinese text `file` for perplexity")
	f.StringVar(&o.under, "under", "", "run what is measured under this `command`, such as \"taskset -c 2,3\"")
	f.DurationVar(&o.limit, "limit", 30*time.Minute, "how long one command may take")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	var err error
	if o.subjects, err = choose(subjects(), list(only)); err != nil {
		return nil, err
	}
	if o.threads, err = numbers(threads); err != nil {
		return nil, err
	}
	for _, test := range list(tests) {
		if !slices.Contains([]string{testSpeed, testBeside, testPerplexity}, test) {
			return nil, fmt.Errorf("--tests %q: use %s, %s and %s", test, testSpeed, testBeside, testPerplexity)
		}
		o.tests = append(o.tests, test)
	}
	for language, path := range map[string]string{"English": english, "Chinese": chinese} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
		o.texts = append(o.texts, text{language, path})
	}
	slices.SortFunc(o.texts, func(a, b text) int { return strings.Compare(b.language, a.language) })
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("%q is no flag", f.Arg(0))
	case o.llama == "":
		return nil, errors.New("--llama is missing: name the folder of llama.cpp's programs")
	case o.rounds < 1 || o.rounds > maxRounds:
		return nil, fmt.Errorf("--rounds %d: use 1 to %d", o.rounds, maxRounds)
	case o.limit <= 0:
		return nil, fmt.Errorf("--limit %s: it must be positive", o.limit)
	case len(o.tests) == 0:
		return nil, errors.New("--tests is empty: nothing would be measured")
	}
	if o.cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("name a folder with --cache: %w", err)
		}
		o.cache = filepath.Join(dir, "daisy-compare")
	}
	// A command's name without a slash is looked up elsewhere.
	for _, path := range []*string{&o.llama, &o.cache} {
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// list splits at commas.
func list(s string) []string {
	if s == "" {
		return nil
	}
	parts := strings.Split(s, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

func numbers(s string) (all []int, err error) {
	for _, part := range list(s) {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 || n > maxThreads {
			return nil, fmt.Errorf("--threads %q: write numbers from 1 to %d, like 1,2", part, maxThreads)
		}
		all = append(all, n)
	}
	if all == nil {
		return nil, errors.New("--threads is empty: write it like 1,2")
	}
	return all, nil
}

// give remembers NAME=FILE.
func give(given map[string]string, assignment string) error {
	name, path, ok := strings.Cut(assignment, "=")
	if !ok || !slices.ContainsFunc(subjects(), func(s subject) bool { return s.name == name }) {
		return errors.New("write NAME=FILE.gguf, with one of the names below")
	}
	if _, err := os.Stat(path); err != nil {
		return err
	}
	given[name] = path
	return nil
}
