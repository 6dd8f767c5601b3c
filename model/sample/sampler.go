package sample

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/token"
)

// Request is all that one choice depends on.
type Request struct {
	Logits   []float32  // (vocab), as the model gave them; only read
	Params   *Params    // validated
	Tokens   []token.ID // the sequence so far: the position chosen is the next
	Prompt   int        // how many of Tokens were given; the others were generated
	Logprobs bool       // fill Choice.Logprob; without it, it is 0
	Top      int        // with Logprobs: so many alternatives
}

// candidate is a token that may still be chosen. Its weight is its probability over that of the most probable token (or,
// before weigh, its logit, which orders it the same way).
type candidate struct {
	weight float64
	id     token.ID
}

// before orders candidates: the heavier first, ties to the lower id.
func (c candidate) before(other candidate) bool {
	return c.weight > other.weight || c.weight == other.weight && c.id < other.id
}

// Sampler chooses tokens. Its scratch grows to the vocabulary once and is reused; the zero value is ready, and it is for
// one caller at a time.
type Sampler struct {
	kernels    *kernel.Set // any gives the same bits
	adjusted   []float32   // (vocab) logits after penalties and bias
	weights    []float32   // (vocab) exp of the logits
	seen       []uint32    // (vocab) how often a token was seen: the low bit for the prompt, 2 for each generated
	candidates []candidate // in the order of ids
	heap       []candidate
}

// New makes a Sampler whose scratch is large enough for a vocabulary from the start.
func New(kernels *kernel.Set, vocab int) *Sampler {
	return &Sampler{
		kernels:  kernels,
		adjusted: make([]float32, 0, vocab), seen: make([]uint32, vocab), weights: make([]float32, vocab),
		candidates: make([]candidate, 0, vocab), heap: make([]candidate, 0, vocab),
	}
}

// Sample chooses the token that follows the sequence. It fails if the logits are not finite, which means that the
// model or its file is broken, or if tokens and logits disagree.
func (s *Sampler) Sample(r *Request) (Choice, error) {
	var choice Choice
	if err := r.check(); err != nil {
		return choice, err
	}
	logits, err := s.adjust(r)
	if err != nil {
		return choice, err
	}
	if best, err := highest(logits); err != nil {
		return choice, err
	} else if r.Params.Temperature == 0 {
		choice.Token = best
	} else {
		choice.Token = s.draw(logits, logits[best], r.Params, token.Position(len(r.Tokens)))
	}
	if r.Logprobs {
		return s.withLogprobs(choice, r)
	}
	return choice, nil
}

func (r *Request) check() error {
	if len(r.Logits) == 0 {
		return errors.New("sample: there are no logits")
	}
	if r.Params == nil {
		return errors.New("sample: there are no parameters")
	}
	if r.Prompt < 0 || r.Prompt > len(r.Tokens) {
		return fmt.Errorf("sample: the prompt has %d tokens, the sequence only %d", r.Prompt, len(r.Tokens))
	}
	return nil
}

// highest is the id of the highest logit, the lowest of equals.
func highest(logits []float32) (token.ID, error) {
	const exponent = 0x7f800000 // all ones: infinite, or not a number
	var best token.ID
	max, overflow := float32(math.Inf(-1)), uint32(0)
	for id, v := range logits {
		overflow |= math.Float32bits(v)&exponent + 1<<23
		if v > max {
			max, best = v, token.ID(id)
		}
	}
	if overflow>>31 == 0 {
		return best, nil
	}
	for id, v := range logits {
		if v-v != 0 {
			return 0, fmt.Errorf("sample: the logit of token %d is %v: the model gave no usable answer", id, v)
		}
	}
	return best, nil
}

// adjust applies penalties and bias: to the logits themselves if there are none, else to a copy.
func (s *Sampler) adjust(r *Request) ([]float32, error) {
	p := r.Params
	repetition := p.RepetitionPenalty != 0 && p.RepetitionPenalty != 1
	counting := p.PresencePenalty != 0 || p.FrequencyPenalty != 0
	if !repetition && !counting && len(p.LogitBias) == 0 {
		return r.Logits, nil
	}
	s.adjusted = append(s.adjusted[:0], r.Logits...)
	if repetition || counting {
		if len(s.seen) < len(r.Logits) {
			s.seen = make([]uint32, len(r.Logits))
		}
		if err := s.penalise(r, repetition); err != nil {
			return nil, err
		}
	}
	for id, bias := range p.LogitBias {
		if id < 0 || int(id) >= len(s.adjusted) {
			return nil, fmt.Errorf("sample: logit bias for token %d of a vocabulary of %d", id, len(s.adjusted))
		}
		s.adjusted[id] += bias
	}
	return s.adjusted, nil
}

func (s *Sampler) penalise(r *Request, repetition bool) error {
	p := r.Params
	for _, id := range r.Tokens {
		if id < 0 || int(id) >= len(r.Logits) {
			return fmt.Errorf("sample: token %d is in the sequence, but the vocabulary has %d", id, len(r.Logits))
		}
	}
	for i, id := range r.Tokens {
		if i < r.Prompt {
			s.seen[id] |= 1
		} else {
			s.seen[id] += 2
		}
	}
	for _, id := range r.Tokens {
		seen := s.seen[id]
		if seen == 0 {
			continue // done at its first occurrence
		}
		s.seen[id] = 0
		v := s.adjusted[id]
		if repetition {
			if v > 0 {
				v /= p.RepetitionPenalty
			} else {
				v *= p.RepetitionPenalty
			}
		}
		if generated := seen / 2; generated > 0 {
			v -= float32(p.FrequencyPenalty * float32(generated))
			v -= p.PresencePenalty
		}
		s.adjusted[id] = v
	}
	return nil
}

// draw chooses by probability.
func (s *Sampler) draw(logits []float32, highest float32, p *Params, position token.Position) token.ID {
	if p.TopK > 0 && p.TopK < len(logits) {
		s.listHighest(logits, p.TopK)
		s.weigh(float64(highest), p)
	} else {
		s.listWeighed(logits, highest, p)
	}
	if p.TopP > 0 && p.TopP < 1 {
		s.cut(s.topP(float64(p.TopP)))
	}
	target := uniform(p.Seed, p.Choice, position) * s.total()
	sum := 0.0
	for _, c := range s.candidates {
		sum += c.weight
		if sum > target {
			return c.id
		}
	}
	// Not reached: target is below the sum, which is the same sum.
	return s.candidates[len(s.candidates)-1].id
}

// listWeighed makes every token a candidate that min-p leaves and that has any weight. The whole vocabulary's exponentials
// are the kernels' work: float32 is exact enough, since sums are still taken in float64.
func (s *Sampler) listWeighed(logits []float32, highest float32, p *Params) {
	weights := s.exponents(logits, highest)
	const coldest = 1e-30 // below, the reciprocal may overflow: everything but the highest is as good as impossible
	if p.Temperature != 1 {
		s.kernels.Scale(weights, 1/max(p.Temperature, coldest))
	}
	s.kernels.Softmax(weights)
	least := float32(0)
	if p.MinP > 0 {
		least = p.MinP * s.kernels.Max(weights)
	}
	s.candidates = s.candidates[:0]
	for id, w := range weights {
		if w > 0 && w >= least {
			s.candidates = append(s.candidates, candidate{float64(w), token.ID(id)})
		}
	}
}

// exponents is the logits' distance from the highest, in scratch.
func (s *Sampler) exponents(logits []float32, highest float32) []float32 {
	if cap(s.weights) < len(logits) {
		s.weights = make([]float32, len(logits))
	}
	s.weights = s.weights[:len(logits)]
	for i, v := range logits {
		s.weights[i] = v - highest
	}
	return s.weights
}

// listHighest makes the k highest candidates: a heap of k with the last of them at the root takes each in turn. Min-p,
// which is meant to come first, commutes with it: both keep the first of one order.
func (s *Sampler) listHighest(logits []float32, k int) {
	after := func(a, b candidate) bool { return b.before(a) }
	s.candidates = s.candidates[:0]
	for id, v := range logits[:k] {
		s.candidates = append(s.candidates, candidate{float64(v), token.ID(id)})
	}
	heap := s.candidates
	heapify(heap, after)
	for i, v := range logits[k:] {
		if c := (candidate{float64(v), token.ID(k + i)}); c.before(heap[0]) {
			heap[0] = c
			sift(heap, 0, after)
		}
	}
	slices.SortFunc(heap, func(a, b candidate) int { return int(a.id) - int(b.id) })
}

// weigh turns logits into weights and drops what min-p excludes, or what has no weight at all.
func (s *Sampler) weigh(max float64, p *Params) {
	temperature, least := float64(p.Temperature), float64(p.MinP)
	hopeless := math.Inf(-1) // exponents whose exp need not be computed to know that min-p excludes them
	if least > 0 {
		hopeless = log(least) - 1e-6
	}
	kept := s.candidates[:0]
	for _, c := range s.candidates {
		exponent := (c.weight - max) / temperature
		if exponent < hopeless {
			continue
		}
		if c.weight = exp(exponent); c.weight > 0 && c.weight >= least {
			kept = append(kept, c)
		}
	}
	s.candidates = kept
}

func (s *Sampler) total() float64 {
	sum := 0.0
	for _, c := range s.candidates {
		sum += c.weight
	}
	return sum
}

// cut drops the candidates after the last one to keep.
func (s *Sampler) cut(last candidate) {
	kept := s.candidates[:0]
	for _, c := range s.candidates {
		if !last.before(c) {
			kept = append(kept, c)
		}
	}
	s.candidates = kept
}

// topP is the last of the smallest set of first candidates that together reach the share p.
func (s *Sampler) topP(p float64) candidate {
	total := s.total()
	// All candidates lighter than this hold less than the share 1-p together, so that the set never needs them; half of
	// it leaves room for rounding.
	least := 0.5 * (1 - p) * total / float64(len(s.candidates))
	heap := s.heap[:0]
	for _, c := range s.candidates {
		if c.weight >= least {
			heap = append(heap, c)
		}
	}
	s.heap = heap
	heapify(heap, candidate.before)
	sum := heap[0].weight
	for sum < p*total && len(heap) > 1 {
		n := len(heap) - 1
		heap[0] = heap[n]
		heap = heap[:n]
		sift(heap, 0, candidate.before)
		sum += heap[0].weight
	}
	return heap[0]
}

// heapify orders the heap so that no parent comes after its children.
func heapify(heap []candidate, before func(a, b candidate) bool) {
	for i := len(heap)/2 - 1; i >= 0; i-- {
		sift(heap, i, before)
	}
}

// sift moves the element at i down to its place.
func sift(heap []candidate, i int, before func(a, b candidate) bool) {
	for {
		child := 2*i + 1
		if child >= len(heap) {
			return
		}
		if child+1 < len(heap) && before(heap[child+1], heap[child]) {
			child++
		}
		if !before(heap[child], heap[i]) {
			return
		}
		heap[i], heap[child] = heap[child], heap[i]
		i = child
	}
}
