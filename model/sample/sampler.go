package sample

import (
	"errors"
	"fmt"

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

// Sampler chooses tokens. Its scratch grows to the vocabulary once and is reused; the zero value is ready, and it is for
// one caller at a time.
type Sampler struct {
	kernels    *kernel.Set // any gives the same bits
	adjusted   []float32   // (vocab) logits after penalties and bias
	seen       []uint32    // (vocab) how often a token was seen: the low bit for the prompt, 2 for each generated
	weights    []float32   // (vocab) exp of the logits
	ids        []int32     // (vocab) of what a threshold leaves
	maxima     []float32   // (vocab / span) the highest logit of each span
	sums       []float32   // (vocab / span) the sum of each span's weights
	candidates []candidate // in the order of ids
	scratch    []candidate
}

// span is how many tokens are summed up as one: walking the sums, a draw soon finds the span it falls into.
const span = 256

// New makes a Sampler whose scratch is large enough for a vocabulary from the start.
func New(kernels *kernel.Set, vocab int) *Sampler {
	s := &Sampler{kernels: kernels}
	s.grow(vocab)
	return s
}

// grow makes the scratch large enough. Most of the candidates' memory is never touched.
func (s *Sampler) grow(vocab int) {
	if len(s.ids) >= vocab {
		return
	}
	spans := (vocab + span - 1) / span
	s.adjusted, s.seen, s.weights, s.ids = make([]float32, vocab), make([]uint32, vocab), make([]float32, vocab), make([]int32, vocab)
	s.maxima, s.sums = make([]float32, spans), make([]float32, spans)
	s.candidates, s.scratch = make([]candidate, 0, vocab), make([]candidate, 0, vocab)
}

// Sample chooses the token that follows the sequence. It fails if the logits are not finite, which means that the
// model or its file is broken, or if tokens and logits disagree.
func (s *Sampler) Sample(r *Request) (Choice, error) {
	var choice Choice
	if err := r.check(); err != nil {
		return choice, err
	}
	s.grow(len(r.Logits))
	logits, err := s.adjust(r)
	if err != nil {
		return choice, err
	}
	if best, err := s.highest(logits); err != nil {
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

// highest is the id of the highest logit, the lowest of equals. It leaves every span's highest in maxima.
func (s *Sampler) highest(logits []float32) (token.ID, error) {
	if !s.kernels.Finite(logits) {
		for id, v := range logits {
			if v-v != 0 {
				return 0, fmt.Errorf("sample: the logit of token %d is %v: the model gave no usable answer", id, v)
			}
		}
	}
	s.maxima = s.maxima[:0]
	for from := 0; from < len(logits); from += span {
		s.maxima = append(s.maxima, s.kernels.Max(logits[from:min(from+span, len(logits))]))
	}
	from := s.kernels.ArgMax(s.maxima) * span
	return token.ID(from + s.kernels.ArgMax(logits[from:min(from+span, len(logits))])), nil
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
