package gateway

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"net/http"
	"strconv"

	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// Bounds of what one request may ask for, where the configuration does not say.
const (
	maxStops     = 64   // OpenAI allows 4
	maxStopBytes = 1024 // of one stop string
)

// options is what chat and completions requests have in common.
type options struct {
	stream       bool
	includeUsage bool
	returnIDs    bool // vLLM's return_token_ids
	choices      int  // n
	maxTokens    int  // 0: as far as the context goes
	stop         []string
	ignoreEOS    bool
	logprobs     bool
	top          int
	sampling     sample.Params
}

// options reads the fields that chat and completions share. What only one of them has (how many tokens, the form of
// logprobs), the caller reads.
func (g *Gateway) options(o *object) options {
	g.checkModel(o)
	opts := options{
		stream:    o.flag("stream", false),
		returnIDs: o.flag("return_token_ids", false),
		choices:   o.integer("n", 1, 1, g.cfg.MaxChoices),
		stop:      stops(o),
		ignoreEOS: o.flag("ignore_eos", false),
		sampling:  g.sampling(o),
	}
	if so := o.object("stream_options"); so != nil {
		if !opts.stream {
			o.fail(invalid("stream_options", "invalid_value", "'stream_options' is only allowed when 'stream' is true."))
		}
		opts.includeUsage = so.flag("include_usage", false)
	}
	if best := o.integer("best_of", opts.choices, 1, math.MaxInt); best != opts.choices {
		o.fail(unsupported("best_of", "'best_of' other than 'n' is not supported: ask for n answers and choose among them."))
	}
	// Without an end-of-generation token or a stop string only max_tokens ends an answer, so any minimum is kept.
	if least := o.integer("min_tokens", 0, 0, math.MaxInt); least > 0 && (!opts.ignoreEOS || len(opts.stop) > 0) {
		o.fail(unsupported("min_tokens", "'min_tokens' is only supported with 'ignore_eos' and without 'stop'."))
	}
	refuse(o)
	return opts
}

// checkModel refuses a model that is not served. A request without one means the one there is.
func (g *Gateway) checkModel(o *object) {
	if name := o.text("model"); o.has("model") && !g.serves(name) {
		o.fail(g.unknownModel(name))
	}
}

func (g *Gateway) unknownModel(name string) *problem {
	p := invalid("model", "model_not_found", "The model '%s' does not exist here: this server has '%s'.", abridge(name), g.cfg.ModelName)
	p.status = http.StatusNotFound
	return p
}

func stops(o *object) []string {
	raw := o.raw("stop")
	if raw == nil {
		return nil
	}
	list := []element{{"stop", raw}}
	if raw[0] == '[' {
		list = o.elements("stop", raw, maxStops)
	}
	var stop []string
	for _, e := range list {
		if e.raw[0] != '"' {
			o.wrongType(e.param, e.raw, "a string")
			return nil
		}
		s := text(e.raw)
		if s == "" || len(s) > maxStopBytes {
			o.fail(invalid(e.param, "invalid_value", "'%s' must have between 1 and %d bytes, not %d.", e.param, maxStopBytes, len(s)))
			return nil
		}
		stop = append(stop, s)
	}
	return stop
}

func (g *Gateway) sampling(o *object) sample.Params {
	p := sample.Params{
		Temperature:       float32(o.number("temperature", 1, 0, 2)),
		TopP:              float32(o.number("top_p", 1, 0, 1)),
		TopK:              max(o.integer("top_k", 0, -1, math.MaxInt32), 0), // -1 is all, as with vLLM
		MinP:              float32(o.number("min_p", 0, 0, 1)),
		RepetitionPenalty: repetitionPenalty(o),
		PresencePenalty:   float32(o.number("presence_penalty", 0, -sample.MaxPenalty, sample.MaxPenalty)),
		FrequencyPenalty:  float32(o.number("frequency_penalty", 0, -sample.MaxPenalty, sample.MaxPenalty)),
		LogitBias:         g.logitBias(o),
		Seed:              uint64(o.integer("seed", 0, math.MinInt, math.MaxInt)),
	}
	if p.TopP == 0 {
		// To sample.Params 0 means all; a client that says 0 means the fewest: one token.
		p.TopP = math.SmallestNonzeroFloat32
	}
	if !o.has("seed") {
		p.Seed = drawSeed()
	}
	return p
}

// drawSeed gives an absent seed its value, once for all answers of a request.
func drawSeed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// repetitionPenalty goes by vLLM's name or llama.cpp's.
func repetitionPenalty(o *object) float32 {
	name := "repetition_penalty"
	if !o.has(name) && o.has("repeat_penalty") {
		name = "repeat_penalty"
	}
	v := o.number(name, 1, 0, sample.MaxRepetitionPenalty)
	if float32(v) == 0 && *o.err == nil {
		o.fail(invalid(name, "invalid_value", "'%s' must be more than 0: 1 does nothing.", name))
	}
	return float32(v)
}

func (g *Gateway) logitBias(o *object) map[token.ID]float32 {
	biases := o.object("logit_bias")
	if biases == nil || len(biases.fields) == 0 {
		return nil
	}
	if len(biases.fields) > sample.MaxBiases {
		o.fail(invalid("logit_bias", "invalid_value", "'logit_bias' has %d tokens: at most %d are allowed.", len(biases.fields), sample.MaxBiases))
		return nil
	}
	bias := make(map[token.ID]float32, len(biases.fields))
	for quoted, raw := range members(o.raw("logit_bias")) {
		key := text(quoted)
		id, err := strconv.Atoi(key)
		if err != nil || id < 0 || id >= g.vocab {
			o.fail(invalid("logit_bias", "invalid_value", "'logit_bias' names the token '%s': token ids are 0 to %d.", abridge(key), g.vocab-1))
			return nil
		}
		if _, twice := bias[token.ID(id)]; twice { // "7" and "+7" or "07"
			o.fail(invalid("logit_bias", "duplicate_field", "'logit_bias' names the token %d twice.", id))
			return nil
		}
		bias[token.ID(id)] = float32(o.parseNumber(biases.join(key), raw, -sample.MaxBias, sample.MaxBias))
	}
	return bias
}

// top reads how many alternatives are wanted beside each token.
func top(o *object, name string) int { return o.integer(name, 0, 0, pass.MaxTop) }
