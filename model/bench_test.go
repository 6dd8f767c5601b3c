package model

import (
	"fmt"
	"os"
	"testing"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
)

// BenchmarkModel measures a real model: MODEL=path go test -bench Model ./model
func BenchmarkModel(b *testing.B) {
	path := os.Getenv("MODEL")
	if path == "" {
		b.Skip("MODEL names no file")
	}
	f, err := gguf.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for _, threads := range []int{1, 2} {
		c := newChain(b, f, nil, kvcache.F16, Options{Threads: threads})
		b.Run(fmt.Sprintf("decode/threads=%d", threads), func(b *testing.B) {
			s := c.sequence()
			id, tokens := []token.ID{1}, 0
			for b.Loop() {
				if tokens%256 == 0 { // a context of 0 to 255
					for _, cache := range s {
						cache.Free()
					}
				}
				c.last(b, c.forward(b, part{s, tokens % 256, id}))
				tokens++
			}
			b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
		})
		b.Run(fmt.Sprintf("prompt/threads=%d", threads), func(b *testing.B) {
			s := c.sequence()
			ids := make([]token.ID, 512)
			for i := range ids {
				ids[i] = token.ID(i + 100)
			}
			tokens := 0
			for b.Loop() {
				c.last(b, c.forward(b, part{s, 0, ids}))
				tokens += len(ids)
			}
			b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
