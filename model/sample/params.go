package sample

import "github.com/daisy-llm/daisy/model/token"

// Params says how a token is chosen from its logits. The zero value of a field means that it does nothing, except
// where noted; Temperature 0 is greedy.
type Params struct {
	Temperature       float32 // divides the logits; 0: the highest logit, ties to the lower id
	TopK              int     // keep the k highest; 0: all
	TopP              float32 // keep the smallest set whose probability reaches p; 0 or 1: all
	MinP              float32 // drop what is less probable than p times the most probable; 0: nothing
	RepetitionPenalty float32 // divides positive and multiplies negative logits of tokens seen; 0 or 1: none
	PresencePenalty   float32 // subtracted once from the logits of tokens generated
	FrequencyPenalty  float32 // subtracted as often as the token was generated
	LogitBias         map[token.ID]float32

	Seed   uint64 // with Choice and the token's position, the key of the random number
	Choice uint32 // which of a request's n answers
}

// Alternative is a token and its natural log probability before temperature and cuts.
type Alternative struct {
	Token   token.ID
	Logprob float32
}

// Choice is a sampled token and, if asked for, the log probabilities around it.
type Choice struct {
	Alternative
	Top []Alternative // highest first
}
