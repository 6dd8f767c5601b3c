package sample

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/token"
)

// probabilities is the slow, obvious definition of what Sampler draws from.
func probabilities(logits []float32, p Params) []float64 {
	type item struct {
		id     int
		weight float64
	}
	var items []item
	max := slices.Max(logits)
	for id, v := range logits {
		weight := math.Exp((float64(v) - float64(max)) / float64(p.Temperature))
		if weight >= float64(p.MinP) {
			items = append(items, item{id, weight})
		}
	}
	slices.SortStableFunc(items, func(a, b item) int {
		switch {
		case a.weight > b.weight:
			return -1
		case a.weight < b.weight:
			return 1
		}
		return 0
	})
	if p.TopK > 0 && p.TopK < len(items) {
		items = items[:p.TopK]
	}
	total := 0.0
	for _, it := range items {
		total += it.weight
	}
	if p.TopP > 0 && p.TopP < 1 {
		sum := 0.0
		for i, it := range items {
			if sum += it.weight; sum >= float64(p.TopP)*total {
				items = items[:i+1]
				break
			}
		}
		total = sum
	}
	out := make([]float64, len(logits))
	for _, it := range items {
		out[it.id] = it.weight / total
	}
	return out
}

func randomLogits(n int, seed uint64) []float32 {
	random := rand.New(rand.NewPCG(seed, 1))
	logits := make([]float32, n)
	for i := range logits {
		logits[i] = float32(random.NormFloat64() * 3)
	}
	return logits
}

func mustSample(t *testing.T, s *Sampler, r *Request) Choice {
	t.Helper()
	choice, err := s.Sample(r)
	if err != nil {
		t.Fatal(err)
	}
	return choice
}

// TestDrawsFollowProbabilities compares the counts of many draws with the exact probabilities by Pearson's chi-squared.
func TestDrawsFollowProbabilities(t *testing.T) {
	const draws = 40000
	logits := randomLogits(50, 7)
	logits[11] = logits[30] // a tie, perhaps at a cut
	for _, p := range []Params{
		{Temperature: 1},
		{Temperature: 0.7},
		{Temperature: 2.5},
		{Temperature: 1, TopK: 1},
		{Temperature: 1, TopK: 7},
		{Temperature: 1.5, TopP: 0.8},
		{Temperature: 1.5, TopP: 0.01},
		{Temperature: 1, MinP: 0.05},
		{Temperature: 2, TopK: 20, TopP: 0.9, MinP: 0.02},
		{Temperature: 1, TopK: 1000, TopP: 1},
	} {
		want := probabilities(logits, p)
		s := New(kernel.Best(), 0)
		counts := make([]int, len(logits))
		for seed := range draws {
			p.Seed = uint64(seed)
			counts[mustSample(t, s, &Request{Logits: logits, Params: &p}).Token]++
		}
		chi, cells := 0.0, 0
		for id, n := range counts {
			if want[id] == 0 && n > 0 {
				t.Fatalf("%+v: token %d was drawn %d times, its probability is 0", p, id, n)
			}
			if expected := want[id] * draws; expected >= 5 {
				chi += (float64(n) - expected) * (float64(n) - expected) / expected
				cells++
			}
		}
		// Mean and variance of the distribution are its degrees of freedom and twice that; six deviations are far out.
		if freedom := float64(cells); chi > freedom+6*math.Sqrt(2*freedom)+1 {
			t.Errorf("%+v: chi squared is %.1f for %d cells", p, chi, cells)
		}
	}
}

// TestKeptSets compares the sets that the cuts leave with the definition, ties and extremes included.
func TestKeptSets(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 400 {
		logits := randomLogits(1+random.IntN(3000), uint64(round))
		if round%3 == 0 { // many ties
			for i := range logits {
				logits[i] = float32(int(logits[i]))
			}
		}
		p := Params{
			Temperature: 0.1 + random.Float32()*3, TopK: random.IntN(2) * random.IntN(40),
			TopP: float32(random.IntN(2)) * random.Float32(), MinP: float32(random.IntN(2)) * random.Float32() * 0.3,
		}
		want := probabilities(logits, p)
		s := New(kernel.Best(), 0)
		s.grow(len(logits))
		if _, err := s.highest(logits); err != nil {
			t.Fatal(err)
		}
		if _, cut := s.narrow(logits, slices.Max(logits), &p); !cut {
			s.listAtLeast(math.SmallestNonzeroFloat32)
		}
		total := s.total()
		got := make([]float64, len(logits))
		for _, c := range s.candidates {
			got[c.id] = c.weight / total
		}
		for id := range want {
			if math.Abs(got[id]-want[id]) > 1e-5*want[id]+1e-37 { // weights are float32, and exp ends in 0
				t.Fatalf("round %d, %+v: token %d has probability %v, want %v", round, p, id, got[id], want[id])
			}
		}
	}
}

func TestGreedy(t *testing.T) {
	s := New(kernel.Best(), 0)
	for _, c := range []struct {
		logits []float32
		want   token.ID
	}{
		{[]float32{1}, 0},
		{[]float32{1, 3, 2}, 1},
		{[]float32{1, 3, 3, 3}, 1},
		{[]float32{-5, -4, -4}, 1},
		{[]float32{0, float32(math.Copysign(0, -1)), 0}, 0},
		{[]float32{-math.MaxFloat32, math.MaxFloat32}, 1},
	} {
		for _, p := range []Params{{}, {TopK: 3, TopP: 0.5, MinP: 0.5, Seed: 9}, {Temperature: 1, TopK: 1}} {
			if got := mustSample(t, s, &Request{Logits: c.logits, Params: &p}).Token; got != c.want {
				t.Errorf("%v with %+v: token %d, want %d", c.logits, p, got, c.want)
			}
		}
	}
}

func TestPenalties(t *testing.T) {
	tokens := []token.ID{0, 1, 1, 2, 2, 2, 3} // 0 1 1 were given
	for _, c := range []struct {
		name   string
		params Params
		want   []float32
	}{
		{"none", Params{RepetitionPenalty: 1}, []float32{4, -4, 8, 1, 2}},
		{"repetition sees prompt and answer", Params{RepetitionPenalty: 2}, []float32{2, -8, 4, 0.5, 2}},
		{"repetition below one favours", Params{RepetitionPenalty: 0.5}, []float32{8, -2, 16, 2, 2}},
		{"presence sees the answer", Params{PresencePenalty: 1.5}, []float32{4, -4, 6.5, -0.5, 2}},
		{"frequency counts", Params{FrequencyPenalty: 0.5}, []float32{4, -4, 6.5, 0.5, 2}},
		{"negative", Params{FrequencyPenalty: -1, PresencePenalty: -2}, []float32{4, -4, 13, 4, 2}},
		{"repetition first", Params{RepetitionPenalty: 2, PresencePenalty: 1, FrequencyPenalty: 1}, []float32{2, -8, 0, -1.5, 2}},
		{"bias last", Params{RepetitionPenalty: 2, LogitBias: map[token.ID]float32{0: 1, 4: -3}}, []float32{3, -8, 4, 0.5, -1}},
	} {
		logits := []float32{4, -4, 8, 1, 2}
		s := New(kernel.Best(), len(logits))
		for range 2 { // the second time finds the scratch as the first left it
			got, err := s.adjust(&Request{Logits: logits, Params: &c.params, Tokens: tokens, Prompt: 3})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
		if !slices.Equal(logits, []float32{4, -4, 8, 1, 2}) {
			t.Errorf("%s: the raw logits were changed: %v", c.name, logits)
		}
	}
	// The token in the answer and in the prompt counts only where it was generated.
	s := New(kernel.Best(), 2)
	got, _ := s.adjust(&Request{Logits: []float32{0, 0}, Params: &Params{FrequencyPenalty: 1}, Tokens: []token.ID{1, 1, 1}, Prompt: 2})
	if !slices.Equal(got, []float32{0, -1}) {
		t.Errorf("a token given twice and generated once: %v", got)
	}
}

func TestPenaltyChangesTheGreedyToken(t *testing.T) {
	s := New(kernel.Best(), 0)
	p := Params{LogitBias: map[token.ID]float32{2: 5}}
	if got := mustSample(t, s, &Request{Logits: []float32{1, 2, 0}, Params: &p}).Token; got != 2 {
		t.Errorf("a bias of 5 on token 2 gave token %d", got)
	}
}

// TestDrawsAreReproducible: the same key gives the same token whatever happened before; each part of it matters.
func TestDrawsAreReproducible(t *testing.T) {
	logits := make([]float32, 1<<12) // uniform: two keys agree by chance once in 4096
	base := Params{Temperature: 1, Seed: 42}
	tokens := []token.ID{1, 2, 3}
	draw := func(p Params, tokens []token.ID) token.ID {
		s := New(kernel.Best(), 0)
		return mustSample(t, s, &Request{Logits: logits, Params: &p, Tokens: tokens}).Token
	}
	want := draw(base, tokens)
	if got := draw(base, []token.ID{7, 8, 9}); got != want {
		t.Errorf("the draw depends on the tokens, not only on their number: %d, want %d", got, want)
	}
	seed, choice, low := base, base, base
	seed.Seed, choice.Choice, low.Seed = base.Seed+1<<32, 1, base.Seed+1
	for name, got := range map[string]token.ID{
		"the seed's high half": draw(seed, tokens), "the seed": draw(low, tokens), "the choice": draw(choice, tokens),
		"the position": draw(base, tokens[:2]),
	} {
		if got == want {
			t.Errorf("%s does not change the draw", name)
		}
	}
	// Pinned: changing the generator or the order of operations changes every seeded answer.
	if want != 2988 {
		t.Errorf("seed 42 at position 3 draws token %d", want)
	}
}

// TestPhilox holds the generator to the known answers published with it (Random123, kat_vectors).
func TestPhilox(t *testing.T) {
	const ones = 0xffffffff
	for _, c := range []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{ones, ones, ones, ones}, [2]uint32{ones, ones}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := philox(c.counter, c.key); got != c.want {
			t.Errorf("philox(%x, %x) = %x, want %x", c.counter, c.key, got, c.want)
		}
	}
	for position := range token.Position(1000) {
		if u := uniform(1, 2, position); u < 0 || u >= 1 {
			t.Fatalf("uniform at %d is %v", position, u)
		}
	}
}

func TestExpAndLog(t *testing.T) {
	for x := -707.9; x <= 0; x += 0.0371 {
		want := math.Exp(x)
		if got := exp(x); math.Abs(got-want) > 1e-14*want {
			t.Fatalf("exp(%v) = %v, want %v", x, got, want)
		}
	}
	if exp(0) != 1 || exp(-1e300) != 0 || exp(math.Inf(-1)) != 0 || exp(math.NaN()) != 0 {
		t.Error("exp at its edges")
	}
	for x := 1e-9; x < 1e9; x *= 1.0173 {
		want := math.Log(x)
		if got := log(x); math.Abs(got-want) > 2e-15+2e-15*math.Abs(want) {
			t.Fatalf("log(%v) = %v, want %v", x, got, want)
		}
	}
	if log(1) != 0 {
		t.Error("log(1) is not 0")
	}
}

func TestLogprobs(t *testing.T) {
	logits := randomLogits(500, 3)
	logits[100], logits[7] = 12, 12
	logits[499] = 11
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v))
	}
	// Temperature, cuts and penalties leave the reported probabilities alone.
	p := Params{Temperature: 0.3, TopK: 2, RepetitionPenalty: 3, LogitBias: map[token.ID]float32{20: 100}}
	s := New(kernel.Best(), 0)
	choice := mustSample(t, s, &Request{Logits: logits, Params: &p, Tokens: []token.ID{7}, Logprobs: true, Top: 3})
	if choice.Token != 20 {
		t.Errorf("token %d, want 20", choice.Token)
	}
	for _, a := range append(choice.Top, choice.Alternative) {
		if want := float64(logits[a.Token]) - math.Log(sum); math.Abs(float64(a.Logprob)-want) > 1e-5 {
			t.Errorf("token %d has log probability %v, want %v", a.Token, a.Logprob, want)
		}
	}
	var ids []token.ID
	for _, a := range choice.Top {
		ids = append(ids, a.Token)
	}
	if !slices.Equal(ids, []token.ID{7, 100, 499}) {
		t.Errorf("top tokens %v", ids)
	}
	all := mustSample(t, s, &Request{Logits: logits[:5], Params: &Params{}, Logprobs: true, Top: 20}).Top
	if len(all) != 5 || !slices.IsSortedFunc(all, func(a, b Alternative) int {
		if a.Logprob > b.Logprob {
			return -1
		}
		return 1
	}) {
		t.Errorf("top 20 of 5 tokens: %v", all)
	}
}

func TestBadInputs(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	greedy := &Params{}
	for _, c := range []struct {
		name    string
		request Request
		want    string
	}{
		{"no logits", Request{Params: greedy}, "no logits"},
		{"no parameters", Request{Logits: []float32{1}}, "no parameters"},
		{"NaN", Request{Logits: []float32{1, nan}, Params: greedy}, "logit of token 1 is NaN"},
		{"all NaN", Request{Logits: []float32{nan, nan}, Params: &Params{Temperature: 1}}, "logit of token 0 is NaN"},
		{"infinite", Request{Logits: []float32{1, 2, inf}, Params: greedy}, "logit of token 2 is +Inf"},
		{"minus infinite", Request{Logits: []float32{-inf, -inf}, Params: greedy}, "logit of token 0 is -Inf"},
		{"overflow by penalty", Request{Logits: []float32{-math.MaxFloat32, 1}, Params: &Params{RepetitionPenalty: 9}, Tokens: []token.ID{0}}, "-Inf"},
		{"prompt", Request{Logits: []float32{1}, Params: greedy, Prompt: 1}, "the prompt has 1 tokens"},
		{"bias", Request{Logits: []float32{1}, Params: &Params{LogitBias: map[token.ID]float32{1: 1}}}, "bias for token 1"},
		{"negative bias id", Request{Logits: []float32{1}, Params: &Params{LogitBias: map[token.ID]float32{-1: 1}}}, "bias for token -1"},
		{"token", Request{Logits: []float32{1}, Params: &Params{PresencePenalty: 1}, Tokens: []token.ID{5}}, "token 5"},
	} {
		s := New(kernel.Best(), 0)
		if _, err := s.Sample(&c.request); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		params Params
		want   string // in the error; empty: valid
	}{
		{Params{}, ""},
		{Params{Temperature: 2, TopK: 50, TopP: 1, MinP: 1, RepetitionPenalty: 1.1, PresencePenalty: -2, FrequencyPenalty: 2}, ""},
		{Params{LogitBias: map[token.ID]float32{0: -100, 9: 100}}, ""},
		{Params{Temperature: -0.1}, "temperature is -0.1"},
		{Params{Temperature: nan}, "temperature is NaN"},
		{Params{Temperature: float32(math.Inf(1))}, "temperature is +Inf"},
		{Params{TopK: -1}, "top_k is -1"},
		{Params{TopP: 1.5}, "top_p is 1.5"},
		{Params{MinP: -1}, "min_p is -1"},
		{Params{RepetitionPenalty: -1}, "repetition_penalty is -1"},
		{Params{PresencePenalty: 2.5}, "presence_penalty is 2.5"},
		{Params{FrequencyPenalty: -2.5}, "frequency_penalty is -2.5"},
		{Params{LogitBias: map[token.ID]float32{10: 1}}, "logit_bias names token 10"},
		{Params{LogitBias: map[token.ID]float32{-1: 1}}, "logit_bias names token -1"},
		{Params{LogitBias: map[token.ID]float32{3: 101}}, "logit_bias of token 3 is 101"},
	} {
		err := c.params.Validate(10)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: error %v, want one with %q", c.params, err, c.want)
		}
	}
	many := Params{LogitBias: map[token.ID]float32{}}
	for id := range token.ID(MaxBiases + 1) {
		many.LogitBias[id] = 1
	}
	if err := many.Validate(1 << 20); err == nil || !strings.Contains(err.Error(), "at most 1024") {
		t.Errorf("too many biases: %v", err)
	}
}

func TestNoAllocation(t *testing.T) {
	logits := randomLogits(4096, 5)
	tokens := []token.ID{1, 2, 3}
	s := New(kernel.Best(), 0)
	for _, p := range []Params{{}, {RepetitionPenalty: 1.1}, {Temperature: 1, TopK: 40, TopP: 0.9, MinP: 0.01}} {
		r := Request{Logits: logits, Params: &p, Tokens: tokens, Prompt: 2}
		sample := func() { mustSample(t, s, &r) }
		sample() // grows the scratch
		if n := testing.AllocsPerRun(20, sample); n != 0 {
			t.Errorf("%+v: %v allocations a token", p, n)
		}
	}
}

// BenchmarkSample is a choice from Gemma 3's vocabulary.
func BenchmarkSample(b *testing.B) {
	logits := randomLogits(262144, 1)
	for _, c := range []struct {
		name     string
		logprobs bool
		p        Params
	}{
		{"greedy", false, Params{}},
		{"logprobs", true, Params{}},
		{"temperature", false, Params{Temperature: 0.8}},
		{"top-k", false, Params{Temperature: 0.8, TopK: 40}},
		{"top-p", false, Params{Temperature: 0.8, TopP: 0.95}},
		{"min-p", false, Params{Temperature: 0.8, MinP: 0.05}},
		{"all", false, Params{Temperature: 0.8, TopK: 64, TopP: 0.95, MinP: 0.05}},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := New(kernel.Best(), 0)
			for b.Loop() {
				if _, err := s.Sample(&Request{Logits: logits, Params: &c.p, Logprobs: c.logprobs, Top: 20}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestEverySetDrawsTheSame: the kernels' exp has the same bits on every instruction set, and so has the choice.
func TestEverySetDrawsTheSame(t *testing.T) {
	logits := randomLogits(5003, 9)
	for _, p := range []Params{
		{Temperature: 1}, {Temperature: 0.7, TopP: 0.95}, {Temperature: 1.3, MinP: 0.01}, {Temperature: 0.8, TopK: 40},
		{Temperature: 1, TopK: 200, TopP: 0.9},
	} {
		for position := range 50 {
			r := &Request{Logits: logits, Params: &p, Tokens: make([]token.ID, position), Prompt: position, Logprobs: true, Top: 5}
			want := mustSample(t, New(kernel.Sets()[0], 0), r)
			for _, set := range kernel.Sets()[1:] {
				got := mustSample(t, New(set, 0), r)
				if got.Alternative != want.Alternative || !slices.Equal(got.Top, want.Top) {
					t.Fatalf("%+v at %d: %s chooses %v, the reference %v", p, position, set.Name, got, want)
				}
			}
		}
	}
}

// TestAmong walks the whole vocabulary, by targets that fall into every token's width, and just before and behind it.
func TestAmong(t *testing.T) {
	logits := randomLogits(3*span+5, 4)
	for id := range span { // nothing in the first span has any weight
		logits[id] = -1000
	}
	s := New(kernel.Best(), len(logits))
	total := s.weighAll(logits, slices.Max(logits), 1)
	sum := 0.0
	for id, w := range s.weights {
		if id%span == 0 {
			sum = 0
			for _, v := range s.sums[:id/span] {
				sum += float64(v)
			}
		}
		if w > 1e-4 {
			if got := s.among(sum + float64(w)/2); got != token.ID(id) {
				t.Fatalf("the middle of token %d is token %d's", id, got)
			}
		}
		sum += float64(w)
	}
	for _, target := range []float64{0, total * (1 - 0x1p-53)} {
		if id := s.among(target); s.weights[id] == 0 {
			t.Errorf("the target %g of %g gives token %d, which has no weight", target, total, id)
		}
	}
}

// TestTiesAtTheCut: of equals, top-k and top-p keep the lower ids, however many there are.
func TestTiesAtTheCut(t *testing.T) {
	const vocab = 4096
	for _, c := range []struct {
		p    Params
		want int
	}{
		{Params{TopK: 10}, 10}, {Params{TopK: 1000}, 1000}, {Params{TopP: 0.5}, vocab / 2}, {Params{TopK: 10, TopP: 0.5}, 5}, {Params{MinP: 1}, vocab},
	} {
		p := c.p
		p.Temperature = 1
		logits := make([]float32, vocab)
		s := New(kernel.Best(), vocab)
		if _, err := s.highest(logits); err != nil {
			t.Fatal(err)
		}
		s.narrow(logits, 0, &p)
		if len(s.candidates) != c.want {
			t.Errorf("%+v keeps %d tokens, want %d", p, len(s.candidates), c.want)
		}
		for i, c := range s.candidates {
			if c.id != token.ID(i) {
				t.Fatalf("%+v: candidate %d is token %d", p, i, c.id)
			}
		}
	}
}
