package rpc_test

import (
	"fmt"
	"testing"

	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// BenchmarkHop times passes of one position through stages of which all but the first hold no layers, so that one more
// stage costs one more hop and nothing else: a hop is the difference between lines, over the difference in stages.
//
//	go test ./services/rpc -run '^$' -bench Hop -count 5
func BenchmarkHop(b *testing.B) {
	g := openGolden(b, "llama")
	for _, stages := range []int{1, 2, 3, 5, 9} {
		b.Run(fmt.Sprintf("stages=%d", stages), func(b *testing.B) {
			l := startCut(b, g.path, func(layers int) []int {
				cuts := []int{0}
				for range stages {
					cuts = append(cuts, layers)
				}
				return cuts
			}, kvcache.F16, workerOptions{})
			l.begin(b, 1, 0)
			l.run(b, 1, 0, []token.ID{1}, pass.Wants{})
			b.ReportAllocs()
			for b.Loop() {
				if out := l.run(b, 1, 1, []token.ID{2}, pass.Wants{}); out.Refused != nil {
					b.Fatal(out.Refused)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "us/pass")
		})
	}
}
