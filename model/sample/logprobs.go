package sample

import "slices"

// withLogprobs adds the natural log probabilities under the raw logits.
func (s *Sampler) withLogprobs(choice Choice, r *Request) (Choice, error) {
	best, err := s.highest(r.Logits)
	if err != nil {
		return choice, err
	}
	max := r.Logits[best]
	logSum := log(s.weighAll(r.Logits, max, 1))
	logprob := func(v float32) float32 { return float32(float64(v) - float64(max) - logSum) }
	choice.Logprob = logprob(r.Logits[choice.Token])
	if top := min(r.Top, len(r.Logits)); top > 0 {
		s.listHighest(r.Logits, top)
		slices.SortFunc(s.candidates, func(a, b candidate) int {
			if a.before(b) {
				return -1
			}
			return 1
		})
		choice.Top = make([]Alternative, top)
		for i, c := range s.candidates {
			choice.Top[i] = Alternative{Token: c.id, Logprob: logprob(float32(c.weight))}
		}
	}
	return choice, nil
}
