package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/kvcache"
)

const maxRepetitions = 1000

// benchOptions are the flags of `bench`.
type benchOptions struct {
	Model       string
	Threads     []int
	Prompt      int // tokens; 0: leave that test out
	Generate    int // tokens; 0: leave that test out
	Repetitions int
	Stages      int // 0: in this process
	CacheType   string
	Kernels     string
	asJSON      bool
}

func newBenchCommand(c *cli) *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast this machine reads prompts and generates",
		Long: `Measure, as llama-bench does, how fast a model reads a prompt (pp) and generates (tg), each from an empty context, and how
close generating comes to the speed at which this machine reads memory.

It runs in this process, without HTTP and shards; --stages N runs the same through a local cluster of N shards. The speed of
memory is that of the fastest of several plain readers over 4 GiB (less where there is less), measured in turn with generating;
the share is the median of the pairs. It says nothing where the weights fit the CPU's caches.`,
		Example: `  daisy bench --model smollm2 --threads 1,2
  daisy bench --stages 2 --threads 1 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			return c.bench(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.Model, "model", "m", defaultModel(), "a `NAME` of the catalogue, a file, or a source")
	f.IntSliceVarP(&o.Threads, "threads", "t", []int{runtime.GOMAXPROCS(0)}, "`NUMBERS` of threads to measure with, between commas; with --stages, of each shard")
	f.IntVarP(&o.Prompt, "prompt", "p", 512, "tokens of the prompt, or 0 to leave that test out")
	f.IntVarP(&o.Generate, "generate", "g", 128, "tokens to generate, or 0 to leave that test out")
	f.IntVarP(&o.Repetitions, "repetitions", "r", 5, "how often to measure; the median counts")
	f.IntVar(&o.Stages, "stages", 0, "measure a local cluster of so many shards (default: the model in this process)")
	f.StringVar(&o.CacheType, "cache-type", "f16", "how keys and values are kept: f16 or f32")
	f.StringVar(&o.Kernels, "kernels", c.env.kernels, "kernels to use, see daisy version (default: the fastest this CPU can run)")
	f.BoolVar(&o.asJSON, "json", false, "print one JSON object a line, and everything else to standard error")
	cmd.AddCommand(newSynthCommand(c))
	return cmd
}

func (o *benchOptions) validate() error {
	for _, threads := range o.Threads {
		if threads < 1 || threads > model.MaxThreads {
			return fmt.Errorf("--threads %d: use 1 to %d", threads, model.MaxThreads)
		}
	}
	switch {
	case len(o.Threads) == 0:
		return errors.New("--threads is empty: write it like 1,2")
	case o.Prompt < 0 || o.Prompt > model.MaxContext:
		return fmt.Errorf("--prompt %d: use 1 to %d, or 0 to leave it out", o.Prompt, model.MaxContext)
	case o.Generate < 0 || o.Generate > model.MaxContext:
		return fmt.Errorf("--generate %d: use 1 to %d, or 0 to leave it out", o.Generate, model.MaxContext)
	case o.Prompt == 0 && o.Generate == 0:
		return errors.New("--prompt 0 and --generate 0 leave nothing to measure")
	case o.Repetitions < 1 || o.Repetitions > maxRepetitions:
		return fmt.Errorf("--repetitions %d: use 1 to %d", o.Repetitions, maxRepetitions)
	case o.Stages < 0 || o.Stages > maxLocalShards:
		return fmt.Errorf("--stages %d: use 1 to %d, or 0 for none", o.Stages, maxLocalShards)
	}
	if _, err := kvcache.Parse(o.CacheType); err != nil {
		return fmt.Errorf("--cache-type: %w", err)
	}
	_, err := selectKernels(o.Kernels)
	return err
}

// subject is what is measured: a model in this process, or a cluster that serves one. Both say how long it took.
type subject interface {
	// prompt reads so many tokens from an empty context.
	prompt(ctx context.Context, tokens int) (time.Duration, error)

	// generate makes so many tokens, one by one, each the most probable, from an empty context.
	generate(ctx context.Context, tokens int) (time.Duration, error)
}

// benchResult is one line of --json.
type benchResult struct {
	Test            string  `json:"test"`
	Threads         int     `json:"threads"`
	TokensPerSecond float64 `json:"tokens_per_second"` // the median
	*benchMemory            // of generating
	lowest, highest float64
}

// bench measures with each number of threads.
func (c *cli) bench(ctx context.Context, o benchOptions) error {
	path, err := c.modelPath(ctx, o.Model)
	if err != nil {
		return err
	}
	b := &bench{benchOptions: o, say: c.console}
	if o.Generate > 0 {
		memory, err := newMemoryReader(c.console)
		if err != nil {
			return err
		}
		defer memory.close()
		b.readMemory = memory.read
	}
	for _, threads := range o.Threads {
		b.threads = threads
		use := func(ctx context.Context, s subject, weights int64) error {
			b.weights = weights
			return b.measure(ctx, s)
		}
		if o.Stages > 0 {
			err = c.withStages(ctx, path, b, use)
		} else {
			err = c.withWhole(ctx, path, b, use)
		}
		if err != nil {
			return err
		}
		if o.asJSON { // what is measured stays measured, whatever comes next
			if err := b.writeJSON(c.out); err != nil {
				return err
			}
		}
	}
	if o.asJSON {
		return b.writeMemory(c.console)
	}
	return b.write(c.out)
}

// bench is what was measured so far.
type bench struct {
	benchOptions
	say        io.Writer
	readMemory func(threads int) float64 // in GB/s
	threads    int                       // measured now
	weights    int64                     // of the model

	results []benchResult
	written int // of results, as JSON
}

// context is how many positions a sequence needs: a cluster also counts the token before the first and the one after the last.
func (b *bench) context() int { return max(b.Prompt, b.Generate) + 2 }

// measure warms up, then measures both tests.
func (b *bench) measure(ctx context.Context, s subject) error {
	if b.Prompt > 0 {
		if err := b.measurePrompt(ctx, s); err != nil {
			return err
		}
	}
	if b.Generate > 0 {
		return b.measureGenerate(ctx, s)
	}
	return nil
}

func (b *bench) measurePrompt(ctx context.Context, s subject) error {
	if _, err := s.prompt(ctx, b.Prompt); err != nil {
		return err
	}
	test, rates := fmt.Sprintf("pp%d", b.Prompt), []float64(nil)
	for range b.Repetitions {
		took, err := s.prompt(ctx, b.Prompt)
		if err != nil {
			return err
		}
		rates = append(rates, b.rate(test, len(rates)+1, b.Prompt, took))
	}
	b.add(test, rates, nil)
	return nil
}

func (b *bench) measureGenerate(ctx context.Context, s subject) error {
	if _, err := s.generate(ctx, min(b.Generate, 8)); err != nil {
		return err
	}
	test := fmt.Sprintf("tg%d", b.Generate)
	var rates, speeds, shares []float64
	for range b.Repetitions {
		speed := b.readMemory(b.threads)
		took, err := s.generate(ctx, b.Generate)
		if err != nil {
			return err
		}
		rate := b.rate(test, len(rates)+1, b.Generate, took)
		rates, speeds = append(rates, rate), append(speeds, speed)
		shares = append(shares, rate*float64(b.weights)/1e9/speed)
	}
	b.add(test, rates, &benchMemory{median(speeds), b.weights, median(shares)})
	return nil
}

// rate turns a time into tokens a second, and says so.
func (b *bench) rate(test string, repetition, tokens int, took time.Duration) float64 {
	rate := float64(tokens) / max(took, time.Nanosecond).Seconds()
	fmt.Fprintf(b.say, "daisy: %s, %s, %d of %d: %.1f tokens/s\n", test, count(b.threads, "thread"), repetition, b.Repetitions, rate)
	return rate
}

func (b *bench) add(test string, rates []float64, memory *benchMemory) {
	b.results = append(b.results, benchResult{test, b.threads, median(rates), memory, slices.Min(rates), slices.Max(rates)})
}

// median is the middle one, or the mean of the middle two.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// writeJSON writes the results that were not written yet.
func (b *bench) writeJSON(w io.Writer) error {
	for ; b.written < len(b.results); b.written++ {
		if err := json.NewEncoder(w).Encode(b.results[b.written]); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) write(w io.Writer) error {
	t := newTable("test", "threads", "tokens/s", "lowest", "highest")
	for _, r := range b.results {
		t.AppendRow(table.Row{r.Test, r.Threads, oneDigit(r.TokensPerSecond), oneDigit(r.lowest), oneDigit(r.highest)})
	}
	if _, err := fmt.Fprintln(w, t.Render()); err != nil || b.Generate == 0 {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return b.writeMemory(w)
}

func oneDigit(v float64) string { return fmt.Sprintf("%.1f", v) }
