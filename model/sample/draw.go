package sample

import (
	"github.com/daisy-llm/daisy/model/token"
)

// draw chooses by probability. Maxima are those of logits.
func (s *Sampler) draw(logits []float32, highest float32, p *Params, position token.Position) token.ID {
	random := uniform(p.Seed, p.Choice, position)
	if total, cut := s.narrow(logits, highest, p); !cut {
		return s.among(random * total)
	}
	target := random * s.total()
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

// narrow makes candidates of what top-k, min-p and top-p leave. If none of them is asked for, it only weighs the vocabulary,
// and gives the sum of its weights.
func (s *Sampler) narrow(logits []float32, highest float32, p *Params) (total float64, cut bool) {
	topP := p.TopP > 0 && p.TopP < 1
	if p.TopK > 0 && p.TopK < len(logits) {
		s.listHighest(logits, p.TopK)
		s.weigh(float64(highest), p)
	} else {
		total = s.weighAll(logits, highest, p.Temperature)
		switch {
		case p.MinP > 0:
			s.listAtLeast(p.MinP)
		case topP:
			s.listHeaviest(float64(p.TopP) * total)
			s.cut(s.lightest(float64(p.TopP) * total))
			return 0, true
		default:
			return total, false
		}
	}
	if topP {
		s.cut(s.lightest(float64(p.TopP) * s.total()))
	}
	return 0, true
}

// weighAll weighs the whole vocabulary: that of the highest logit is 1. A span's weights are summed in float32, the spans in
// float64.
func (s *Sampler) weighAll(logits []float32, highest, temperature float32) (total float64) {
	const coldest = 1e-30 // below, the reciprocal may overflow: everything but the highest is as good as impossible
	scale := 1 / max(temperature, coldest)
	s.weights, s.sums = s.weights[:len(logits)], s.sums[:0]
	for from := 0; from < len(logits); from += span {
		end := min(from+span, len(logits))
		sum := s.kernels.ExpSum(s.weights[from:end], logits[from:end], highest, scale)
		s.sums = append(s.sums, sum)
		total += float64(sum)
	}
	return total
}

// among is the token at a distance from the start of all weights in a row, which is less than their sum.
func (s *Sampler) among(target float64) token.ID {
	before, at := 0.0, 0
	for ; at < len(s.sums)-1 && before+float64(s.sums[at]) <= target; at++ {
		before += float64(s.sums[at])
	}
	from := at * span
	sum, last := before, 0
	for id, w := range s.weights[from:min(from+span, len(s.weights))] {
		if sum += float64(w); sum > target {
			return token.ID(from + id)
		}
		if w > 0 {
			last = id
		}
	}
	return token.ID(from + last) // the span's sum was rounded up
}
