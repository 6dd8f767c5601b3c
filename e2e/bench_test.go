//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkShards measures what a user gets of the default model on one machine: tokens a second of one stream, how fast a
// prompt of 512 tokens is read, and what one more shard costs a token. A stream's time is the difference between a long
// answer and a short one, so that the request's own cost drops out; of five, the median counts.
//
//	go test ./e2e -run '^$' -bench Shards -benchtime 1x
func BenchmarkShards(b *testing.B) {
	single := 0.0
	for _, shards := range []int{1, 2, 3} {
		b.Run(fmt.Sprintf("shards=%d", shards), func(b *testing.B) {
			c := up(b, shards, "--threads", "1")
			for b.Loop() {
				decode := c.decodeTime(b)
				b.ReportMetric(1/decode.Seconds(), "tokens/s")
				b.ReportMetric(c.promptSpeed(b, 512), "prompt-tokens/s")
				if micros := decode.Seconds() * 1e6; shards == 1 {
					single = micros
				} else {
					b.ReportMetric((micros-single)/float64(shards-1), "us/shard")
				}
			}
			c.end(b)
		})
	}
	b.Run("shards=1,threads=2", func(b *testing.B) {
		c := up(b, 1, "--threads", "2")
		for b.Loop() {
			b.ReportMetric(1/c.decodeTime(b).Seconds(), "tokens/s")
			b.ReportMetric(c.promptSpeed(b, 512), "prompt-tokens/s")
		}
		c.end(b)
	})
}

// BenchmarkHop measures what one more process in the pipeline costs a token: with a model so small that next to nothing is
// computed, the rest is the way. It is the difference between lines, over the difference in shards.
//
//	go test ./e2e -run '^$' -bench Hop -benchtime 1x
func BenchmarkHop(b *testing.B) {
	single := 0.0
	for _, shards := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("shards=%d", shards), func(b *testing.B) {
			c := up(b, shards, "--threads", "1", "--context", "256", "--model", "../model/testdata/golden/llama/model.gguf")
			for b.Loop() {
				micros := c.tokenTime(b, []int{1, 2, 3}, 240).Seconds() * 1e6
				b.ReportMetric(micros, "us/token")
				if shards == 1 {
					single = micros
				} else {
					b.ReportMetric((micros-single)/float64(shards-1), "us/hop")
				}
			}
			c.end(b)
		})
	}
}

// timed is how long a completion takes.
func (c *cluster) timed(b *testing.B, prompt []int, tokens int) time.Duration {
	b.Helper()
	began := time.Now()
	a, err := c.complete(map[string]any{"prompt": prompt, "temperature": 0, "ignore_eos": true, "max_tokens": tokens})
	if err != nil || len(a.IDs) != tokens {
		b.Fatalf("%d tokens, %v", len(a.IDs), err)
	}
	return time.Since(began)
}

// decodeTime is what one token of an answer takes.
func (c *cluster) decodeTime(b *testing.B) time.Duration {
	return c.tokenTime(b, []int{504, 3575, 282, 4649, 314}, 257) // "The capital of France is"
}

// tokenTime is what one token of an answer of so many takes.
func (c *cluster) tokenTime(b *testing.B, prompt []int, tokens int) time.Duration {
	c.timed(b, prompt, tokens) // warms up
	return median(func() time.Duration {
		return (c.timed(b, prompt, tokens) - c.timed(b, prompt, 1)) / time.Duration(tokens-1)
	})
}

// promptSpeed is how many tokens of a prompt are read in a second, until the first token of the answer is there.
func (c *cluster) promptSpeed(b *testing.B, length int) float64 {
	prompt := make([]int, length)
	for i := range prompt {
		prompt[i] = 100 + i*7919%40000
	}
	return float64(length) / median(func() time.Duration { return c.timed(b, prompt, 1) }).Seconds()
}

func median(measure func() time.Duration) time.Duration {
	var all []time.Duration
	for range 5 {
		all = append(all, measure())
	}
	slices.Sort(all)
	return all[len(all)/2]
}
