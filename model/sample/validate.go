package sample

import "fmt"

// Bounds of Params; what lies outside does nothing useful and invites overflow.
const (
	MaxTemperature       = 100
	MaxRepetitionPenalty = 100
	MaxPenalty           = 2   // presence and frequency, either sign
	MaxBias              = 100 // either sign
	MaxBiases            = 1024
)

// Validate says what is wrong with the parameters for a vocabulary of that size, or nil.
func (p *Params) Validate(vocab int) error {
	within := func(name string, v, low, high float32) error {
		if v >= low && v <= high { // false for NaN
			return nil
		}
		return fmt.Errorf("%s is %v: it must be between %v and %v", name, v, low, high)
	}
	for _, err := range []error{
		within("temperature", p.Temperature, 0, MaxTemperature),
		within("top_p", p.TopP, 0, 1),
		within("min_p", p.MinP, 0, 1),
		within("repetition_penalty", p.RepetitionPenalty, 0, MaxRepetitionPenalty),
		within("presence_penalty", p.PresencePenalty, -MaxPenalty, MaxPenalty),
		within("frequency_penalty", p.FrequencyPenalty, -MaxPenalty, MaxPenalty),
	} {
		if err != nil {
			return err
		}
	}
	if p.TopK < 0 {
		return fmt.Errorf("top_k is %d: it must be 0 (all) or more", p.TopK)
	}
	if len(p.LogitBias) > MaxBiases {
		return fmt.Errorf("logit_bias has %d tokens: at most %d are allowed", len(p.LogitBias), MaxBiases)
	}
	for id, bias := range p.LogitBias {
		if id < 0 || int(id) >= vocab {
			return fmt.Errorf("logit_bias names token %d: the vocabulary has the ids 0 to %d", id, vocab-1)
		}
		if err := within(fmt.Sprintf("logit_bias of token %d", id), bias, -MaxBias, MaxBias); err != nil {
			return err
		}
	}
	return nil
}
