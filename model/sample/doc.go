// Package sample turns the logits of one position into one token.
//
// A Sampler owns nothing but scratch for one vocabulary: what a choice depends on comes with every call, so that a
// stage may be replaced in the middle of a generation and its successor chooses the same token. It is called by the last
// stage of a pipeline, once for every position that wants a token.
//
// The order of operations is vLLM's:
//
//  1. log probabilities, if asked for: the log softmax of the raw logits
//  2. repetition penalty, over the prompt and what was generated
//  3. frequency and presence penalty, over what was generated only
//  4. logit bias
//  5. temperature; at 0 the highest value wins, ties go to the lower id, and nothing below applies
//  6. min-p
//  7. top-k
//  8. top-p, over the probabilities that are left, renormalised
//  9. one draw: tokens in the order of their ids, each as wide as its probability
//
// Invariant: the token is a function of logits, parameters, the tokens so far and the seed alone. Probabilities come from
// the kernels' exp, or for the few that top-k leaves from this package's own. Their sums are taken in float64 in the order of
// ids, those of a whole vocabulary by spans of 256, each added up by the kernels. One number of a counter-based generator keyed by
// (seed, choice, position) is compared with them: the bits are the same on every CPU, and no state is carried from one token
// to the next.
//
// It refuses logits that are not finite and parameters out of bounds, with an error that says which.
package sample
