package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inTime runs a test in synctest's bubble.
func inTime(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func prompt(n int) Request {
	r := Request{MaxTokens: 5, IgnoreEOS: true}
	for range n {
		r.Prompt = append(r.Prompt, 300)
	}
	return r
}

func TestLife(t *testing.T) {
	inTime(t, "waits for its shards, then answers", func(t *testing.T) {
		c := start(t, nil)
		defer c.stop()
		c.join("a")
		if s := c.settled(); s.State != StateWaiting || !strings.Contains(s.Detail, "1 of 2") || c.Ready() {
			t.Errorf("with one of two shards: %+v", s)
		}
		if _, _, _, err := c.collect(t.Context(), prompt(3)); !errors.Is(err, ErrNotReady) {
			t.Errorf("a request before that ends with %v", err)
		}
		c.join("b")
		s := c.settled()
		if s.State != StateReady || len(s.Shards) != 2 || s.Shards[0].First != 0 || s.Shards[0].Last != s.Shards[1].First || int(s.Shards[1].Last) != s.Layers {
			t.Fatalf("with both shards: %+v", s)
		}
		for _, n := range []int{1, 3, promptChunk - 70, 50} {
			ids, _, answer, err := c.collect(t.Context(), prompt(n))
			if err != nil || !slices.Equal(ids, []token.ID{301, 302, 303, 304, 305}) || answer != (Answer{Finish: FinishLength, PromptTokens: n, GeneratedTokens: 5}) {
				t.Errorf("a prompt of %d: %v, %+v, %v", n, ids, answer, err)
			}
		}
		if n := c.open(); n != 0 {
			t.Errorf("%d sequences are still cached", n)
		}
	})
	inTime(t, "a lost shard changes no answer, and the rest is planned anew", func(t *testing.T) {
		c := start(t, nil)
		defer c.stop()
		c.join("a", "b")
		c.settled()
		r := prompt(3)
		r.MaxTokens = 50
		c.delay.Store(int64(50 * time.Millisecond))
		want, _, _, err := c.collect(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan []token.ID, 1)
		go func() {
			ids, _, _, err := c.collect(t.Context(), r)
			if err != nil {
				t.Error(err)
			}
			ended <- ids
		}()
		time.Sleep(time.Second)
		c.lose("b")
		if ids := <-ended; !slices.Equal(ids, want) {
			t.Errorf("the answer is %v, undisturbed it was %v", ids, want)
		}
		s := c.settled()
		if s.State != StateReady || len(s.Shards) != 1 || int(s.Shards[0].Last) != s.Layers {
			t.Errorf("afterwards: %+v", s)
		}
		if ids, _, _, err := c.collect(t.Context(), prompt(3)); err != nil || len(ids) != 5 {
			t.Errorf("the next request: %v, %v", ids, err)
		}
		if n := c.open(); n != 0 {
			t.Errorf("%d sequences are still cached", n)
		}
	})
	inTime(t, "a request waits while a plan is loaded", func(t *testing.T) {
		c := start(t, nil)
		defer c.stop()
		c.join("a", "b")
		c.settled()
		c.lose("b")
		synctest.Wait()
		if ids, _, _, err := c.collect(t.Context(), prompt(3)); err != nil || len(ids) != 5 {
			t.Errorf("a request in the middle of it: %v, %v", ids, err)
		}
	})
	inTime(t, "a shard that joins is put to use once nothing runs", func(t *testing.T) {
		c := start(t, nil)
		defer c.stop()
		c.join("a", "b")
		before := c.settled().Plan
		c.delay.Store(int64(200 * time.Millisecond))
		r := prompt(3)
		r.MaxTokens = 60
		ended := make(chan error, 1)
		go func() {
			_, _, _, err := c.collect(t.Context(), r)
			ended <- err
		}()
		time.Sleep(time.Second)
		c.join("c", "d") // four layers: one each
		if s := c.settled(); s.Plan != before || s.Active != 1 {
			t.Errorf("while a generation runs: %+v", s)
		}
		if err := <-ended; err != nil {
			t.Errorf("the generation ended with %v", err)
		}
		if s := c.settled(); s.Plan == before || s.State != StateReady || slices.ContainsFunc(s.Shards, func(s ShardStatus) bool { return s.Stage < 0 }) {
			t.Errorf("afterwards: %+v", s)
		}
		if ids, _, _, err := c.collect(t.Context(), prompt(3)); err != nil || len(ids) != 5 {
			t.Errorf("the next request: %v, %v", ids, err)
		}
	})
	inTime(t, "what has no part in the plan breaks nothing", func(t *testing.T) {
		c := start(t, nil)
		defer c.stop()
		c.join("a", "b")
		first, second := c.settled().Shards[0].Name, c.Status().Shards[1].Name
		c.delay.Store(int64(100 * time.Millisecond))
		r := prompt(3)
		r.MaxTokens = 50
		ended := make(chan error, 1)
		generate := func() {
			_, _, _, err := c.collect(t.Context(), r)
			ended <- err
		}
		go generate()
		time.Sleep(time.Second)
		lost := errors.New("connection reset")
		c.link(second).fault(first, lost) // a link of an older plan
		c.link(first).fault("gone", lost)
		c.rosters <- plan.NewRoster(c.members[0]) // gossip is mistaken: the link to the other lives
		if err := <-ended; err != nil {
			t.Errorf("the generation ended with %v", err)
		}
		c.rosters <- plan.NewRoster(c.members...)
		go generate()
		time.Sleep(time.Second)
		c.link(first).fault(second, lost)
		if err := <-ended; err != nil {
			t.Errorf("when the link between its stages broke, the generation ended with %v", err)
		}
		if s := c.settled(); s.State != StateReady {
			t.Errorf("afterwards: %+v", s)
		}
	})
	inTime(t, "a shard that gossip has lost and that gives no sign of life is gone", func(t *testing.T) {
		c := start(t, nil)
		defer c.stop()
		c.join("a", "b")
		c.settled()
		c.proc("b").pause()
		c.rosters <- plan.NewRoster(c.members[0])
		c.settled()
		if s := c.settled(); s.State != StateReady || len(s.Shards) != 1 {
			t.Errorf("afterwards: %+v", s)
		}
	})
	inTime(t, "a request that meets a broken pipeline waits for the next", func(t *testing.T) {
		c := start(t, nil)
		defer c.stop()
		c.join("a", "b")
		c.settled()
		c.routes[0].pipeline.Break(errors.New("a link was lost"))
		if ids, _, _, err := c.collect(t.Context(), prompt(3)); err != nil || len(ids) != 5 {
			t.Errorf("%v, %v", ids, err)
		}
	})
	inTime(t, "a plan that could not be loaded leaves nothing behind, and its name is not used again", func(t *testing.T) {
		c := start(t, nil)
		defer c.stop()
		failed := pass.PlanID{Number: 1, Leader: "c"}
		c.loading = func(ctx context.Context, shard string, load pass.Load) error {
			switch {
			case load.Plan != failed:
				return nil
			case shard == "a":
				return errors.New("a bad sector")
			}
			<-ctx.Done()
			return ctx.Err()
		}
		c.join("a", "b")
		synctest.Wait()
		time.Sleep(settleTime)
		synctest.Wait()
		if n := len(c.proc("b").blocks); n != 0 || c.Ready() {
			t.Errorf("%d blocks of it are there", n)
		}
		if s := c.settled(); s.State != StateReady || s.Plan == failed.String() {
			t.Errorf("afterwards: %+v", s)
		}
	})
	inTime(t, "a link that breaks between two living shards costs no reload", func(t *testing.T) {
		c := start(t, nil)
		defer c.stop()
		c.join("a", "b")
		before := c.settled().Plan
		c.link("b").die <- errors.New("the network hiccuped")
		s := c.settled()
		if s.State != StateReady || s.Plan != before {
			t.Errorf("afterwards: %+v", s)
		}
		if n := c.proc("b").reads; n != 2 {
			t.Errorf("%d layers were read", n)
		}
	})
	inTime(t, "nor does it while a generation runs", func(t *testing.T) {
		c := start(t, nil)
		defer c.stop()
		c.join("a", "b")
		before := c.settled().Plan
		c.delay.Store(int64(100 * time.Millisecond))
		r := prompt(3)
		r.MaxTokens = 50
		ended := make(chan error, 1)
		go func() {
			_, _, _, err := c.collect(t.Context(), r)
			ended <- err
		}()
		time.Sleep(time.Second)
		c.slow = 500 * time.Millisecond
		c.link("b").die <- errors.New("the network hiccuped")
		if err := <-ended; err != nil {
			t.Errorf("the generation ended with %v", err)
		}
		s := c.settled()
		if s.State != StateReady || s.Plan != before {
			t.Errorf("afterwards: %+v", s)
		}
		if n := c.proc("b").reads; n != 2 {
			t.Errorf("%d layers were read", n)
		}
		if n := c.open(); n != 0 {
			t.Errorf("%d sequences are still cached", n)
		}
	})
	inTime(t, "a shard with another model gets nothing", func(t *testing.T) {
		c := start(t, nil)
		defer c.stop()
		c.unfit["b"] = fmt.Errorf("%w: it is older", pipeline.ErrModel)
		c.join("a", "b")
		s := c.settled()
		if s.State != StateWaiting || s.Shards[1].State != "unfit" || !strings.Contains(s.Shards[1].Detail, "older") {
			t.Errorf("with an unfit shard: %+v", s)
		}
		c.join("d")
		if s := c.settled(); s.State != StateReady {
			t.Errorf("with a fit one in its place: %+v", s)
		}
	})
	inTime(t, "a shard with another model that joins disturbs nobody", func(t *testing.T) {
		c := start(t, nil)
		defer c.stop()
		c.unfit["d"] = fmt.Errorf("%w: it is older", pipeline.ErrModel)
		c.join("a", "b")
		before := c.settled().Plan
		c.join("c", "d")
		s := c.settled()
		if s.Plan != before || s.State != StateReady || s.Shards[3].State != "unfit" {
			t.Errorf("with an unfit shard: %+v", s)
		}
	})
	inTime(t, "a status says whose loss the others survive", func(t *testing.T) {
		c := start(t, func(cfg *Config) {
			for i := range cfg.Shape.Layers {
				cfg.Shape.Layers[i].Weights = 400 << 10 // of 1 MiB that each shard offers
			}
		})
		defer c.stop()
		c.join("a", "b")
		for _, s := range c.settled().Shards {
			if s.Missing < 400<<10 {
				t.Errorf("without %s %d bytes are missing, one shard cannot hold the model", s.Name, s.Missing)
			}
		}
		c.join("d", "e")
		for _, s := range c.settled().Shards {
			if s.Missing != 0 {
				t.Errorf("without %s %d bytes are missing, of four shards any two can hold the model", s.Name, s.Missing)
			}
		}
	})
	inTime(t, "too little memory says how much is missing", func(t *testing.T) {
		c := start(t, func(cfg *Config) { cfg.Shape.Layers[0].Weights = 1 << 30 })
		defer c.stop()
		c.join("a", "b")
		if s := c.settled(); s.State != StateWaiting || !strings.Contains(s.Detail, "missing") && !strings.Contains(s.Detail, "too") {
			t.Errorf("without memory: %+v", s)
		}
	})
}

func TestGenerate(t *testing.T) {
	inTime(t, "an answer", func(t *testing.T) {
		c := start(t, nil)
		defer c.stop()
		c.join("a", "b")
		c.settled()
		eos, _ := c.cfg.Tokenizer.EOS()

		t.Log("ends at an end-of-generation token, which counts but has no text")
		c.next = func(tokens []token.ID, _ uint64) token.ID {
			if last := tokens[len(tokens)-1]; last != 302 {
				return last + 1
			}
			return eos
		}
		r := prompt(2)
		r.IgnoreEOS, r.MaxTokens = false, 20
		ids, text, answer, err := c.collect(t.Context(), r)
		if err != nil || answer.Finish != FinishStop || answer.GeneratedTokens != 3 || ids[2] != eos || strings.Contains(text, "</s>") {
			t.Errorf("%v %q %+v %v", ids, text, answer, err)
		}

		t.Log("never fills more than the context")
		c.next = func([]token.ID, uint64) token.ID { return 300 }
		r = prompt(60)
		r.MaxTokens = 1000
		if ids, _, answer, err := c.collect(t.Context(), r); err != nil || len(ids) != 4 || answer.Finish != FinishLength {
			t.Errorf("%v %+v %v", ids, answer, err)
		}

		t.Log("ends when its client is gone")
		c.delay.Store(int64(time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		r = prompt(2)
		r.MaxTokens = 50
		if _, _, _, err := c.collect(ctx, r); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a client that is gone: %v", err)
		}
		gone := errors.New("broken pipe")
		if _, err := c.Generate(t.Context(), r, func(Delta) error { return gone }); !errors.Is(err, gone) {
			t.Errorf("a client that takes nothing: %v", err)
		}
		if n := c.open(); n != 0 {
			t.Errorf("%d sequences are still cached", n)
		}

		t.Log("waits for a place, or is refused")
		ends := make(chan error, 4)
		for range 4 { // two places, one may wait
			go func() {
				_, _, _, err := c.collect(t.Context(), prompt(1))
				ends <- err
			}()
		}
		busy := 0
		for range 4 {
			if err := <-ends; errors.Is(err, ErrBusy) {
				busy++
			} else if err != nil {
				t.Error(err)
			}
		}
		if busy != 1 {
			t.Errorf("%d of four requests were refused, with two places and room for one more", busy)
		}
	})
}

func TestRequestsThatCannotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil)
		defer c.stop()
		c.join("a", "b")
		c.settled()
		change := func(f func(*Request)) Request { r := prompt(3); f(&r); return r }
		for what, r := range map[string]Request{
			"no prompt":         change(func(r *Request) { r.Prompt = nil }),
			"unknown token":     change(func(r *Request) { r.Prompt[1] = 1 << 20 }),
			"negative token":    change(func(r *Request) { r.Prompt[1] = -1 }),
			"negative maximum":  change(func(r *Request) { r.MaxTokens = -1 }),
			"empty stop string": change(func(r *Request) { r.Stop = []string{""} }),
			"long stop string":  change(func(r *Request) { r.Stop = []string{strings.Repeat("x", 1<<20)} }),
			"many stop strings": change(func(r *Request) { r.Stop = make([]string, 1000) }),
			"alternatives":      change(func(r *Request) { r.Top = 1000 }),
			"temperature":       change(func(r *Request) { r.Sampling.Temperature = -1 }),
		} {
			if _, _, _, err := c.collect(t.Context(), r); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, _, _, err := c.collect(t.Context(), prompt(64)); !errors.Is(err, ErrTooLong) {
			t.Errorf("a prompt as long as the context: %v", err)
		}
		all := change(func(r *Request) { r.Sampling.TopK = 1 << 40 })
		if err := c.check(&all); err != nil || all.Sampling.TopK != 0 {
			t.Errorf("the highest 2^40 tokens: %d, %v", all.Sampling.TopK, err)
		}
	})
}

// TestTraceOfAClient: whatever trace state a client sends, shards accept the passes of its request.
func TestTraceOfAClient(t *testing.T) {
	state := trace.TraceState{}
	for i := range 4 {
		var err error
		if state, err = state.Insert(fmt.Sprint("k", i), strings.Repeat("v", 200)); err != nil {
			t.Fatal(err)
		}
		ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, TraceState: state,
		}))
		got := traceOf(ctx)
		if want := state.String(); got.Parent == "" || len(got.State) > pass.MaxTraceStateBytes || len(want) <= pass.MaxTraceStateBytes && got.State != want {
			t.Errorf("a trace state of %d bytes goes on as %q, %q", len(want), got.Parent, got.State)
		}
	}
}

func TestStopMatcher(t *testing.T) {
	for _, c := range []struct {
		stops      []string
		pieces     []string
		text, stop string
	}{
		{nil, []string{"a", "b"}, "ab", ""},
		{[]string{"END"}, []string{"a", "E", "N", "D", "x"}, "a", "END"},
		{[]string{"END"}, []string{"aE", "N", "b"}, "aENb", ""},
		{[]string{"END"}, []string{"aEN"}, "aEN", ""},
		{[]string{"aab"}, []string{"aa", "aa", "b"}, "aa", "aab"},
		{[]string{"b", "ab"}, []string{"xa", "b"}, "x", "ab"},
		{[]string{"ab", "abc"}, []string{"xabc"}, "x", "abc"},
		{[]string{"\n\n"}, []string{"one\n", "two\n", "\nthree"}, "one\ntwo", "\n\n"},
		{[]string{"世界"}, []string{"你好", "世", "界", "!"}, "你好", "世界"},
	} {
		m := stopMatcher{stops: c.stops}
		text, stop := "", ""
		for _, p := range c.pieces {
			var out string
			if out, stop = m.push(p); stop != "" {
				text += out
				break
			}
			text += out
		}
		if stop == "" {
			text += m.flush()
		}
		if text != c.text || stop != c.stop {
			t.Errorf("%q in %q: %q then %q, want %q then %q", c.stops, c.pieces, text, stop, c.text, c.stop)
		}
	}
}
