package shard_test

import (
	"context"
	"testing"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
	"github.com/daisy-llm/daisy/shard"
)

// TestAPassAllocatesItsResultAlone: a token costs a shard's loop the result that it hands on, its list of outputs, the choice
// in it, and the slice that gives the rows back to their pool; whatever the model, and however far the sequence has come.
func TestAPassAllocatesItsResultAlone(t *testing.T) {
	for _, name := range []string{"llama", "gemma3"} {
		for _, cache := range []kvcache.Type{kvcache.F16, kvcache.F32} {
			s, w, run := start(t, func(c *shard.Config) {
				c.Open = func(context.Context, pass.Load) (*gguf.File, error) {
					return gguf.Open("../model/testdata/golden/" + name + "/model.gguf")
				}
			})
			run()
			l := whole(planID)
			l.Context, l.CacheType = 256, cache
			if name == "gemma3" {
				l.Layers.Last = 8
			}
			load(t, s, l)
			begin(t, s, "c", 1)
			passes := make([]*pass.Pass, 0, 200)
			for i := range 200 {
				p := step("c", 1, uint32(i), 5)
				p.Route[0].Layers = model.Layers{Last: l.Layers.Last}
				p.Entries[0].First = token.Position(i)
				passes = append(passes, p)
			}
			next := func() {
				if err := s.Submit(passes[0]); err != nil {
					t.Fatal(err)
				}
				passes = passes[1:]
				if r := <-w.results; r.Outputs[0].Choice == nil {
					t.Fatal(r.Outputs[0].Refused)
				}
			}
			for range 70 { // the second page is taken
				next()
			}
			if n := testing.AllocsPerRun(100, next); n > 4 {
				t.Errorf("%s, %v cache: a pass allocates %v times", name, cache, n)
			}
		}
	}
}
