package sample

import "github.com/daisy-llm/daisy/model/token"

// withLogprobs adds the natural log probabilities under the raw logits.
func (s *Sampler) withLogprobs(choice Choice, r *Request) (Choice, error) {
	best, err := highest(r.Logits)
	if err != nil {
		return choice, err
	}
	max := r.Logits[best]
	logSum := s.kernels.LogSumExp(s.exponents(r.Logits, max))
	logprob := func(v float32) float32 { return float32(float64(v) - float64(max) - float64(logSum)) }
	choice.Logprob = logprob(r.Logits[choice.Token])
	if top := min(r.Top, len(r.Logits)); top > 0 {
		choice.Top = make([]Alternative, 0, top)
		for id, v := range r.Logits {
			choice.Top = insert(choice.Top, Alternative{Token: token.ID(id), Logprob: v})
		}
		for i := range choice.Top {
			choice.Top[i].Logprob = logprob(choice.Top[i].Logprob)
		}
	}
	return choice, nil
}

// insert keeps the highest cap(top) of what it was given, highest first; equals stay in the order they came, by id.
func insert(top []Alternative, a Alternative) []Alternative {
	at := len(top)
	for at > 0 && a.Logprob > top[at-1].Logprob {
		at--
	}
	if len(top) < cap(top) {
		top = append(top, a)
	} else if at == len(top) {
		return top
	}
	copy(top[at+1:], top[at:])
	top[at] = a
	return top
}
