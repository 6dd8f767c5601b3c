package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/model/tokenizer"
	"github.com/daisy-llm/daisy/shard"
)

const (
	maxTextBytes       = 256 << 20
	minPerplexityChunk = 3 // a shorter one scores nothing
)

// perplexityOptions are the flags of `perplexity`.
type perplexityOptions struct {
	Model     string
	Context   int
	Chunks    int // 0: all
	Threads   int // 0: one for every core
	CacheType string
	Kernels   string
}

func newPerplexityCommand(c *cli) *cobra.Command {
	var o perplexityOptions
	cmd := &cobra.Command{
		Use:   "perplexity FILE",
		Short: "Measure how well a model predicts a text",
		Long: `Measure the perplexity of a model on a text, as llama-perplexity defines it, so that figures compare.

The text's tokens are cut into chunks of the context length; what is left over is not used. Each chunk is read from an empty
cache, its first token replaced by the one that begins a sequence, if the model wants that. The tokens of a chunk's second
half, but for its very first, are scored. PPL is e to the mean of their negative log probabilities.

The last line on standard output is the figure; how it develops goes to standard error. It runs in this process, without shards.`,
		Example: "  daisy perplexity --model smollm2 --context 512 wiki.test.raw",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, cache, err := o.validate()
			if err != nil {
				return err
			}
			text, err := readText(args[0])
			if err != nil {
				return err
			}
			path, err := c.modelPath(cmd.Context(), o.Model)
			if err != nil {
				return err
			}
			bar := newProgress(c.console)
			w, err := loadWhole(cmd.Context(), path, wholeOptions{
				Context: o.Context, Threads: o.Threads, CacheType: cache, Kernels: set, Progress: bar.set,
			})
			bar.end()
			if err != nil {
				return err
			}
			defer w.close()
			ids, bos, err := tokensOf(w, text)
			if err != nil {
				return err
			}
			score, err := w.perplexity(cmd.Context(), ids, bos, o, func(chunk, chunks int, s perplexityScore) {
				fmt.Fprintf(c.console, "daisy: chunk %d of %d: PPL = %.4f\n", chunk, chunks, s.ppl())
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.console, "daisy: %d tokens scored, PPL = %.4f +/- %.5f\n", score.count, score.ppl(), score.deviation())
			_, err = fmt.Fprintf(c.out, "PPL = %.3f\n", score.ppl())
			return err
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.Model, "model", "m", defaultModel(), "a `NAME` of the catalogue, a file, or a source")
	f.IntVarP(&o.Context, "context", "c", 512, "tokens of a chunk")
	f.IntVar(&o.Chunks, "chunks", 0, "use only so many chunks (default: all)")
	f.IntVarP(&o.Threads, "threads", "t", 0, "threads to compute with (default: one for every core)")
	f.StringVar(&o.CacheType, "cache-type", "f16", "how keys and values are kept: f16 or f32")
	f.StringVar(&o.Kernels, "kernels", c.env.kernels, "kernels to use, see daisy version (default: the fastest this CPU can run)")
	return cmd
}

func (o *perplexityOptions) validate() (*kernel.Set, kvcache.Type, error) {
	switch {
	case o.Context < minPerplexityChunk:
		return nil, 0, fmt.Errorf("--context %d: use %d or more", o.Context, minPerplexityChunk)
	case o.Chunks < 0:
		return nil, 0, fmt.Errorf("--chunks %d: use 1 or more, or 0 for all", o.Chunks)
	case o.Threads < 0:
		return nil, 0, fmt.Errorf("--threads %d: use 1 or more, or 0 for one for every core", o.Threads)
	}
	cache, err := kvcache.Parse(o.CacheType)
	if err != nil {
		return nil, 0, fmt.Errorf("--cache-type: %w", err)
	}
	set, err := selectKernels(o.Kernels)
	return set, cache, err
}

// readText reads a text as llama-perplexity does: without the line break at its end.
func readText(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the text: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxTextBytes+1))
	if err != nil {
		return "", fmt.Errorf("read the text: %w", err)
	}
	if len(raw) > maxTextBytes {
		return "", fmt.Errorf("the text %s is longer than %s", path, formatSize(maxTextBytes))
	}
	return strings.TrimSuffix(string(raw), "\n"), nil
}

// tokensOf gives the text's tokens, and the token that begins every chunk, or -1 if the model wants none.
func tokensOf(w *whole, text string) (ids []token.ID, bos token.ID, err error) {
	t, err := tokenizer.New(w.file)
	if err != nil {
		return nil, -1, err
	}
	if t.Size() > w.cfg.Vocab {
		return nil, -1, fmt.Errorf("the tokenizer has %d tokens, but the model only %d", t.Size(), w.cfg.Vocab)
	}
	bos = -1
	if id, ok := t.BOS(); ok && t.AddsBOS() {
		bos = id
	}
	return t.Encode(text, tokenizer.Options{AddSpecial: true}), bos, nil
}

// perplexityScore is the negative log probabilities of the tokens scored so far.
type perplexityScore struct {
	count        int
	sum, squares float64
}

func (s *perplexityScore) add(negative float64) {
	s.count++
	s.sum += negative
	s.squares += negative * negative
}

func (s *perplexityScore) ppl() float64 { return math.Exp(s.sum / float64(s.count)) }

// deviation is the standard error of ppl.
func (s *perplexityScore) deviation() float64 {
	mean := s.sum / float64(s.count)
	variance := s.squares/float64(s.count) - mean*mean
	if variance <= 0 || s.count < 2 {
		return 0
	}
	return s.ppl() * math.Sqrt(variance/float64(s.count-1))
}

// perplexity scores the text chunk by chunk, and tells after each.
func (w *whole) perplexity(ctx context.Context, ids []token.ID, bos token.ID, o perplexityOptions, tell func(chunk, chunks int, s perplexityScore)) (perplexityScore, error) {
	var s perplexityScore
	if len(ids) < 2*o.Context {
		return s, fmt.Errorf("the text has %d tokens: at least %d are needed with a context of %d", len(ids), 2*o.Context, o.Context)
	}
	chunks := len(ids) / o.Context
	if o.Chunks > 0 {
		chunks = min(chunks, o.Chunks)
	}
	chunk := make([]token.ID, o.Context)
	for n := range chunks {
		copy(chunk, ids[n*o.Context:])
		if bos >= 0 {
			chunk[0] = bos
		}
		if err := w.score(ctx, chunk, &s); err != nil {
			return s, fmt.Errorf("chunk %d: %w", n+1, err)
		}
		tell(n+1, chunks, s)
	}
	return s, nil
}

// score runs one chunk from an empty cache and scores what its second half predicts.
func (w *whole) score(ctx context.Context, chunk []token.ID, s *perplexityScore) error {
	first, last := len(chunk)/2, len(chunk)-1 // positions [first, last) predict the token after them
	for from := 0; from < last; from += wholeRows {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		to := min(from+wholeRows, len(chunk))
		x, err := w.step(chunk[from:to], token.Position(from))
		if err != nil {
			return err
		}
		for at := max(from, first); at < min(to, last); at += shard.MaxHeadRows {
			end := min(at+shard.MaxHeadRows, to, last)
			logits, err := w.head(x[(at-from)*w.cfg.Hidden : (end-from)*w.cfg.Hidden])
			if err != nil {
				return err
			}
			for _, negative := range negativeLogs(logits, w.cfg.Vocab, chunk[at+1:end+1]) {
				if math.IsNaN(negative) || math.IsInf(negative, 0) {
					return errors.New("a token's probability is no number: the model gave no usable answer")
				}
				s.add(negative)
			}
		}
	}
	return nil
}

// negativeLogs is -log of the probability of each token, given its row of logits, (len(ids), vocab).
func negativeLogs(logits []float32, vocab int, ids []token.ID) []float64 {
	out := make([]float64, len(ids))
	var all sync.WaitGroup
	for i, id := range ids {
		row := logits[i*vocab : (i+1)*vocab]
		all.Go(func() {
			highest := float64(slices.Max(row))
			sum := 0.0
			for _, v := range row {
				sum += math.Exp(float64(v) - highest)
			}
			out[i] = math.Log(sum) + highest - float64(row[id])
		})
	}
	all.Wait()
	return out
}
