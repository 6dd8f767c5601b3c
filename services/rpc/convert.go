package rpc

import (
	"fmt"
	"strings"

	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
	daisyv1 "github.com/daisy-llm/daisy/proto/daisy/v1"
)

// Bounds of texts that peers send.
const (
	maxName    = 255
	maxTrace   = pass.MaxTraceStateBytes
	maxDetail  = 1024
	maxPath    = 4096
	maxContext = 1 << 24
	maxLayer   = 1 << 16
	maxBias    = 4096
)

func checkText(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%s of %d bytes, at most %d are accepted", what, len(s), limit)
	}
	return nil
}

func cut(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.ToValidUTF8(s, "\uFFFD") // protobuf refuses to send anything else
}

func planToProto(p pass.PlanID) *daisyv1.PlanID {
	return &daisyv1.PlanID{Number: p.Number, Leader: p.Leader}
}

func planFromProto(p *daisyv1.PlanID) (pass.PlanID, error) {
	return pass.PlanID{Number: p.GetNumber(), Leader: p.GetLeader()}, checkText("leader", p.GetLeader(), maxName)
}

func layersFromProto(first, last uint32) (model.Layers, error) {
	if first > last || last > maxLayer {
		return model.Layers{}, fmt.Errorf("layers [%d, %d)", first, last)
	}
	return model.Layers{First: model.LayerIndex(first), Last: model.LayerIndex(last)}, nil
}

func passToProto(p *pass.Pass) *daisyv1.PassHeader {
	h := &daisyv1.PassHeader{
		Number:      p.Number,
		Coordinator: p.Coordinator,
		Plan:        planToProto(p.Plan),
		Route:       make([]*daisyv1.Stage, len(p.Route)),
		Traceparent: p.TraceParent,
		Tracestate:  p.TraceState,
		Entries:     make([]*daisyv1.Entry, len(p.Entries)),
		Bytes:       uint64(len(p.Rows)) * 4,
		ReplayFirst: uint32(p.Replay.First),
		ReplayLast:  uint32(p.Replay.Last),
	}
	for i, s := range p.Route {
		h.Route[i] = &daisyv1.Stage{Shard: s.Shard, Address: s.Address, First: uint32(s.Layers.First), Last: uint32(s.Layers.Last)}
	}
	for i := range p.Entries {
		e := &p.Entries[i]
		h.Entries[i] = &daisyv1.Entry{
			Sequence: uint64(e.Sequence),
			Epoch:    uint32(e.Epoch),
			Turn:     e.Turn,
			First:    uint32(e.First),
			Count:    uint32(e.Count),
			Tokens:   tokensToProto(e.Tokens),
			Wants: &daisyv1.Wants{
				Token: e.Wants.Token, Logprobs: e.Wants.Logprobs, Top: uint32(e.Wants.Top),
				Logits: e.Wants.Logits, Hidden: e.Wants.Hidden,
			},
			Refused: refusalToProto(e.Refused),
		}
	}
	return h
}

// passFromProto believes nothing: every length and number is within the bounds of package pass afterwards.
func passFromProto(h *daisyv1.PassHeader) (*pass.Pass, error) {
	plan, err := planFromProto(h.GetPlan())
	if err != nil {
		return nil, err
	}
	if len(h.GetRoute()) < 1 || len(h.GetRoute()) > pass.MaxStages || len(h.GetEntries()) > pass.MaxEntries {
		return nil, fmt.Errorf("pass of %d stages and %d entries", len(h.GetRoute()), len(h.GetEntries()))
	}
	for what, s := range map[string]string{"traceparent": h.GetTraceparent(), "tracestate": h.GetTracestate(), "coordinator": h.GetCoordinator()} {
		if err := checkText(what, s, maxTrace); err != nil {
			return nil, err
		}
	}
	p := &pass.Pass{
		Number:      h.GetNumber(),
		Coordinator: h.GetCoordinator(),
		Plan:        plan,
		Route:       make([]pass.Stage, len(h.GetRoute())),
		TraceParent: h.GetTraceparent(),
		TraceState:  h.GetTracestate(),
		Entries:     make([]pass.Entry, len(h.GetEntries())),
	}
	if p.Replay, err = layersFromProto(h.GetReplayFirst(), h.GetReplayLast()); err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	for i, s := range h.GetRoute() {
		layers, err := layersFromProto(s.GetFirst(), s.GetLast())
		if err != nil {
			return nil, err
		}
		if err := checkText("stage", s.GetShard()+s.GetAddress(), 2*maxName); err != nil {
			return nil, err
		}
		p.Route[i] = pass.Stage{Shard: s.GetShard(), Address: s.GetAddress(), Layers: layers}
	}
	for i, e := range h.GetEntries() {
		if p.Entries[i], err = entryFromProto(e); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return p, nil
}

func entryFromProto(e *daisyv1.Entry) (pass.Entry, error) {
	w := e.GetWants()
	if e.GetCount() > pass.MaxCount || e.GetFirst() > maxContext || len(e.GetTokens()) > pass.MaxCount || w.GetTop() > pass.MaxTop {
		return pass.Entry{}, fmt.Errorf("%d positions from %d, %d tokens, %d alternatives: out of bounds",
			e.GetCount(), e.GetFirst(), len(e.GetTokens()), w.GetTop())
	}
	return pass.Entry{
		Sequence: pass.SequenceID(e.GetSequence()),
		Epoch:    pass.Epoch(e.GetEpoch()),
		Turn:     e.GetTurn(),
		First:    token.Position(e.GetFirst()),
		Count:    int(e.GetCount()),
		Tokens:   tokensFromProto(e.GetTokens()),
		Wants: pass.Wants{
			Token: w.GetToken(), Logprobs: w.GetLogprobs(), Top: int(w.GetTop()),
			Logits: w.GetLogits(), Hidden: w.GetHidden(),
		},
		Refused: refusalFromProto(e.GetRefused()),
	}, nil
}

func tokensToProto(ids []token.ID) []int32 {
	out := make([]int32, len(ids))
	for i, id := range ids {
		out[i] = int32(id)
	}
	return out
}

func tokensFromProto(ids []int32) []token.ID {
	out := make([]token.ID, len(ids))
	for i, id := range ids {
		out[i] = token.ID(id)
	}
	return out
}

func refusalToProto(r *pass.Refusal) *daisyv1.Refusal {
	if r == nil {
		return nil
	}
	return &daisyv1.Refusal{Shard: cut(r.Shard, maxName), Reason: daisyv1.Reason(r.Reason), Detail: cut(r.Detail, maxDetail)}
}

func refusalFromProto(r *daisyv1.Refusal) *pass.Refusal {
	if r == nil {
		return nil
	}
	reason := pass.ReasonUnknown
	if n := r.GetReason(); n > 0 && n <= daisyv1.Reason(pass.ReasonPlan) {
		reason = pass.Reason(n)
	}
	return &pass.Refusal{Shard: cut(r.GetShard(), maxName), Reason: reason, Detail: cut(r.GetDetail(), maxDetail)}
}

func resultToProto(r *pass.Result) (h *daisyv1.ResultHeader, values int) {
	h = &daisyv1.ResultHeader{Number: r.Number, Plan: planToProto(r.Plan), Outputs: make([]*daisyv1.Output, len(r.Outputs))}
	for i := range r.Outputs {
		o := &r.Outputs[i]
		h.Outputs[i] = &daisyv1.Output{
			Sequence: uint64(o.Sequence), Epoch: uint32(o.Epoch), Turn: o.Turn,
			Refused: refusalToProto(o.Refused),
			Choice:  choiceToProto(o.Choice),
			Logits:  uint64(len(o.Logits)),
			Hidden:  uint64(len(o.Hidden)),
		}
		values += len(o.Logits) + len(o.Hidden)
	}
	h.Bytes = uint64(values) * 4
	return h, values
}

// resultFromProto gives a result whose logits and hidden states are cut from values.
func resultFromProto(h *daisyv1.ResultHeader, values []float32) (*pass.Result, error) {
	plan, err := planFromProto(h.GetPlan())
	if err != nil {
		return nil, err
	}
	if len(h.GetOutputs()) > pass.MaxEntries {
		return nil, fmt.Errorf("result of %d outputs", len(h.GetOutputs()))
	}
	r := &pass.Result{Number: h.GetNumber(), Plan: plan, Outputs: make([]pass.Output, len(h.GetOutputs()))}
	take := func(n uint64) ([]float32, error) {
		if n > uint64(len(values)) {
			return nil, fmt.Errorf("output of %d values, the payload has %d more", n, len(values))
		}
		v := values[:n:n]
		values = values[n:]
		return v, nil
	}
	for i, o := range h.GetOutputs() {
		out := &r.Outputs[i]
		out.Sequence, out.Epoch, out.Turn = pass.SequenceID(o.GetSequence()), pass.Epoch(o.GetEpoch()), o.GetTurn()
		out.Refused = refusalFromProto(o.GetRefused())
		if out.Choice, err = choiceFromProto(o.GetChoice()); err != nil {
			return nil, err
		}
		if out.Logits, err = take(o.GetLogits()); err != nil {
			return nil, err
		}
		if out.Hidden, err = take(o.GetHidden()); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func choiceToProto(c *sample.Choice) *daisyv1.Choice {
	if c == nil {
		return nil
	}
	out := &daisyv1.Choice{Token: int32(c.Token), Logprob: c.Logprob}
	for _, a := range c.Top {
		out.Top = append(out.Top, &daisyv1.Alternative{Token: int32(a.Token), Logprob: a.Logprob})
	}
	return out
}

func choiceFromProto(c *daisyv1.Choice) (*sample.Choice, error) {
	if c == nil {
		return nil, nil
	}
	if len(c.GetTop()) > pass.MaxTop || c.GetToken() < 0 {
		return nil, fmt.Errorf("choice of token %d with %d alternatives", c.GetToken(), len(c.GetTop()))
	}
	out := &sample.Choice{Alternative: sample.Alternative{Token: token.ID(c.GetToken()), Logprob: c.GetLogprob()}}
	for _, a := range c.GetTop() {
		if a.GetToken() < 0 {
			return nil, fmt.Errorf("alternative of token %d", a.GetToken())
		}
		out.Top = append(out.Top, sample.Alternative{Token: token.ID(a.GetToken()), Logprob: a.GetLogprob()})
	}
	return out, nil
}

func beginToProto(b pass.Begin) *daisyv1.Begin {
	s := &b.Sampling
	out := &daisyv1.Begin{
		Sequence: uint64(b.Sequence),
		Epoch:    uint32(b.Epoch),
		Plan:     planToProto(b.Plan),
		Keep:     uint32(b.Keep),
		Tokens:   tokensToProto(b.Tokens),
		Prompt:   uint32(b.Prompt),
		Sampling: &daisyv1.Sampling{
			Temperature: s.Temperature, TopK: uint32(s.TopK), TopP: s.TopP, MinP: s.MinP,
			RepetitionPenalty: s.RepetitionPenalty, PresencePenalty: s.PresencePenalty, FrequencyPenalty: s.FrequencyPenalty,
			Seed: s.Seed, Choice: s.Choice,
		},
	}
	for id, bias := range s.LogitBias {
		out.Sampling.BiasTokens = append(out.Sampling.BiasTokens, int32(id))
		out.Sampling.BiasValues = append(out.Sampling.BiasValues, bias)
	}
	return out
}

func beginFromProto(b *daisyv1.Begin) (pass.Begin, error) {
	plan, err := planFromProto(b.GetPlan())
	if err != nil {
		return pass.Begin{}, err
	}
	s := b.GetSampling()
	if b.GetKeep() > maxContext || b.GetPrompt() > maxContext || s.GetTopK() > maxContext ||
		len(s.GetBiasTokens()) > maxBias || len(s.GetBiasTokens()) != len(s.GetBiasValues()) {
		return pass.Begin{}, fmt.Errorf("keep %d, prompt %d, top-k %d, %d biased tokens: out of bounds",
			b.GetKeep(), b.GetPrompt(), s.GetTopK(), len(s.GetBiasTokens()))
	}
	out := pass.Begin{
		Sequence: pass.SequenceID(b.GetSequence()),
		Epoch:    pass.Epoch(b.GetEpoch()),
		Plan:     plan,
		Keep:     token.Position(b.GetKeep()),
		Tokens:   tokensFromProto(b.GetTokens()),
		Prompt:   int(b.GetPrompt()),
		Sampling: sample.Params{
			Temperature: s.GetTemperature(), TopK: int(s.GetTopK()), TopP: s.GetTopP(), MinP: s.GetMinP(),
			RepetitionPenalty: s.GetRepetitionPenalty(), PresencePenalty: s.GetPresencePenalty(), FrequencyPenalty: s.GetFrequencyPenalty(),
			Seed: s.GetSeed(), Choice: s.GetChoice(),
		},
	}
	if n := len(s.GetBiasTokens()); n > 0 {
		out.Sampling.LogitBias = make(map[token.ID]float32, n)
		for i, id := range s.GetBiasTokens() {
			out.Sampling.LogitBias[token.ID(id)] = s.GetBiasValues()[i]
		}
	}
	return out, nil
}

func begunToProto(b pass.Begun) *daisyv1.Begun {
	out := &daisyv1.Begun{}
	for _, s := range b.Cached {
		out.Cached = append(out.Cached, &daisyv1.Span{First: uint32(s.Layers.First), Last: uint32(s.Layers.Last), Positions: uint32(s.Positions)})
	}
	for _, l := range b.Logs {
		out.Logs = append(out.Logs, &daisyv1.Log{Before: uint32(l.Before), Positions: uint32(l.Positions)})
	}
	return out
}

func begunFromProto(b *daisyv1.Begun) (pass.Begun, error) {
	var out pass.Begun
	for i, s := range b.GetCached() {
		layers, err := layersFromProto(s.GetFirst(), s.GetLast())
		if err != nil {
			return out, err
		}
		if s.GetPositions() > maxContext || i > 0 && layers.First != out.Cached[i-1].Layers.Last {
			return out, fmt.Errorf("%d positions cached in layers %v: out of bounds, or not the next layers", s.GetPositions(), layers)
		}
		out.Cached = append(out.Cached, pass.Span{Layers: layers, Positions: token.Position(s.GetPositions())})
	}
	for _, l := range b.GetLogs() {
		if l.GetBefore() > maxLayer || l.GetPositions() > maxContext {
			return out, fmt.Errorf("a log of %d positions before layer %d: out of bounds", l.GetPositions(), l.GetBefore())
		}
		out.Logs = append(out.Logs, pass.Log{Before: model.LayerIndex(l.GetBefore()), Positions: token.Position(l.GetPositions())})
	}
	return out, nil
}

func loadToProto(l pass.Load) *daisyv1.Load {
	return &daisyv1.Load{
		Plan:  planToProto(l.Plan),
		First: uint32(l.Layers.First), Last: uint32(l.Layers.Last),
		Embedding: l.First, Head: l.Last,
		Model: l.Model, Sha256: l.SHA256, Path: l.Path, Bytes: l.Bytes, Root: l.Root,
		Context: uint32(l.Context), Parallel: uint32(l.Parallel),
		CacheType: cacheTypeToProto(l.CacheType),
	}
}

func loadFromProto(l *daisyv1.Load) (pass.Load, error) {
	plan, err := planFromProto(l.GetPlan())
	if err != nil {
		return pass.Load{}, err
	}
	layers, err := layersFromProto(l.GetFirst(), l.GetLast())
	if err != nil {
		return pass.Load{}, err
	}
	if err := checkText("model", l.GetModel()+l.GetPath()+l.GetSha256()+l.GetRoot(), maxPath); err != nil {
		return pass.Load{}, err
	}
	if l.GetContext() > maxContext || l.GetParallel() > maxContext || l.GetBytes() < 0 {
		return pass.Load{}, fmt.Errorf("context of %d, %d in parallel, %d bytes: out of bounds", l.GetContext(), l.GetParallel(), l.GetBytes())
	}
	cache, err := cacheTypeFromProto(l.GetCacheType())
	if err != nil {
		return pass.Load{}, err
	}
	return pass.Load{
		Plan: plan, Layers: layers, First: l.GetEmbedding(), Last: l.GetHead(),
		Model: l.GetModel(), SHA256: l.GetSha256(), Path: l.GetPath(), Bytes: l.GetBytes(), Root: l.GetRoot(),
		Context: int(l.GetContext()), Parallel: int(l.GetParallel()), CacheType: cache,
	}, nil
}

func cacheTypeToProto(t kvcache.Type) daisyv1.CacheType {
	if t == kvcache.F32 {
		return daisyv1.CacheType_CACHE_TYPE_F32
	}
	return daisyv1.CacheType_CACHE_TYPE_F16
}

func cacheTypeFromProto(t daisyv1.CacheType) (kvcache.Type, error) {
	switch t {
	case daisyv1.CacheType_CACHE_TYPE_F16:
		return kvcache.F16, nil
	case daisyv1.CacheType_CACHE_TYPE_F32:
		return kvcache.F32, nil
	}
	return 0, fmt.Errorf("cache type %v is not known here", t)
}
