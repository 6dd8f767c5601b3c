package sample

import (
	"math"
	"slices"

	"github.com/daisy-llm/daisy/model/token"
)

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

// listHighest makes the k highest logits candidates. The kth highest of the spans' maxima is no higher than the kth highest of
// all, so that what is below needs no second look. Min-p, which is meant to come first, commutes with it: both keep the
// first of one order.
func (s *Sampler) listHighest(logits []float32, k int) {
	ids := s.ids[:len(logits)]
	if k <= len(s.maxima) {
		s.scratch = s.scratch[:0]
		for at, v := range s.maxima {
			s.scratch = keep(s.scratch, k, candidate{float64(v), token.ID(at)})
		}
		ids = s.kernels.AtLeast(ids, logits, float32(s.scratch[0].weight))
	} else {
		for id := range ids {
			ids[id] = int32(id)
		}
	}
	s.candidates = s.candidates[:0]
	for _, id := range ids {
		s.candidates = keep(s.candidates, k, candidate{float64(logits[id]), token.ID(id)})
	}
	slices.SortFunc(s.candidates, func(a, b candidate) int { return int(a.id) - int(b.id) })
}

// keep adds a candidate to those that come first, at most k of them: a heap with the last at the root.
func keep(heap []candidate, k int, c candidate) []candidate {
	if len(heap) < k {
		heap = append(heap, c)
		for i := len(heap) - 1; i > 0 && heap[(i-1)/2].before(heap[i]); i = (i - 1) / 2 {
			heap[i], heap[(i-1)/2] = heap[(i-1)/2], heap[i]
		}
		return heap
	}
	if !c.before(heap[0]) {
		return heap
	}
	heap[0] = c
	for i := 0; ; {
		child := 2*i + 1
		if child+1 < k && heap[child].before(heap[child+1]) {
			child++
		}
		if child >= k || !heap[i].before(heap[child]) {
			return heap
		}
		heap[i], heap[child] = heap[child], heap[i]
		i = child
	}
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

// listAtLeast makes candidates of the tokens with so much weight, and gives the sum of it.
func (s *Sampler) listAtLeast(least float32) (sum float64) {
	s.candidates = s.candidates[:0]
	for _, id := range s.kernels.AtLeast(s.ids[:len(s.weights)], s.weights, least) {
		w := float64(s.weights[id])
		s.candidates = append(s.candidates, candidate{w, token.ID(id)})
		sum += w
	}
	return sum
}

// listHeaviest makes candidates of the heaviest tokens, of so many that their weights reach goal: of more than these, most
// often, but seldom of many.
func (s *Sampler) listHeaviest(goal float64) {
	const start, step, lightest, tiniest = 1.0 / 256, 1.0 / 4, 1e-36, 0x1p-149
	for least := float32(start); s.listAtLeast(least) < goal; least *= step {
		if least < lightest {
			s.listAtLeast(tiniest)
			return
		}
	}
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

// lightest is the last of the smallest set of first candidates whose weights reach goal; the last of all if none does. It looks
// for it as quickselect does, by the sums of the weights.
func (s *Sampler) lightest(goal float64) candidate {
	c := append(s.scratch[:0], s.candidates...)
	for len(c) > 1 {
		pivot := median(c[0], c[len(c)/2], c[len(c)-1])
		first, last, sum := 0, len(c)-1, 0.0 // c[:first] come before the pivot, c[last+1:] after it
		for i := 0; i <= last; {
			switch {
			case c[i].before(pivot):
				sum += c[i].weight
				c[first], c[i] = c[i], c[first]
				first++
				i++
			case c[i] == pivot:
				i++
			default:
				c[i], c[last] = c[last], c[i]
				last--
			}
		}
		switch rest := goal - sum - pivot.weight; {
		case sum >= goal && first > 0:
			c = c[:first]
		case rest <= 0 || last+1 == len(c):
			return pivot
		default:
			goal, c = rest, c[last+1:]
		}
	}
	return c[0]
}

func median(a, b, c candidate) candidate {
	if b.before(a) {
		a, b = b, a
	}
	switch {
	case c.before(a):
		return a
	case b.before(c):
		return b
	}
	return c
}
