package model

// preNormLayer is one layer of the llama family (llama, qwen2, qwen3, smollm3, granite), as one worker sees it:
//
//	x += scale * attention(norm(x))
//	x += scale * feedForward(norm(x))
//
// Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023. Queries and keys are normed before they
// turn in qwen3; the scale is granite's.
func (b *Block) preNormLayer(worker int, l *layer, index int) {
	in := b.inputs(&b.ofHidden, b.cfg.Hidden) // (rows, hidden)
	b.normalise(worker, in, l.attentionNorm.values)
	b.attention(worker, l, index, in) // x (rows, hidden)

	b.normalise(worker, in, l.ffnNorm.values)
	b.feedForward(worker, l, in)
}

// postNormLayer is one layer of olmo2, as one worker sees it:
//
//	x += norm(attention(x))
//	x += norm(feedForward(x))
//
// OLMo team, "2 OLMo 2 Furious", 2025. Queries and keys are normed over all heads.
func (b *Block) postNormLayer(worker int, l *layer, index int) {
	in := b.inputs(&b.ofHidden, b.cfg.Hidden) // (rows, hidden)
	b.prepareStream(worker, in)
	b.attention(worker, l, index, in)
	b.addNormed(worker, l.attentionPostNorm.values) // x (rows, hidden)

	b.prepareStream(worker, in)
	b.feedForward(worker, l, in)
	b.addNormed(worker, l.ffnPostNorm.values)
}

// sandwichLayer is one layer of gemma2 and gemma3, as one worker sees it:
//
//	x += norm(attention(norm(x)))
//	x += norm(feedForward(norm(x)))
//
// Gemma team, "Gemma 2: Improving Open Language Models at a Practical Size", 2024, and "Gemma 3 Technical Report", 2025.
// Scores are capped in gemma2; queries and keys are normed before they turn in gemma3.
func (b *Block) sandwichLayer(worker int, l *layer, index int) {
	in := b.inputs(&b.ofHidden, b.cfg.Hidden) // (rows, hidden)
	b.normalise(worker, in, l.attentionNorm.values)
	b.attention(worker, l, index, in)
	b.addNormed(worker, l.attentionPostNorm.values) // x (rows, hidden)

	b.normalise(worker, in, l.ffnNorm.values)
	b.feedForward(worker, l, in)
	b.addNormed(worker, l.ffnPostNorm.values)
}

// attention computes output(attend(rope(qkv(in)))).
func (b *Block) attention(worker int, l *layer, index int, in inputs) {
	b.project(worker, l, in) // qkv (rows, queries | keys | values)
	if b.cfg.QKNorm == AcrossHeads {
		b.normaliseQK(worker, l)
	}
	b.turnAndStore(worker, l, index)
	b.attend(worker, index) // attended (rows, heads, headDim)
	attended := b.inputs(&b.ofAttended, b.cfg.queryDim())
	b.prepare(worker, attended, b.attended, b.cfg.queryDim())
	b.contribute(worker, &l.output, attended)
}

// feedForward computes down(activation(gate(in)) * up(in)).
func (b *Block) feedForward(worker int, l *layer, in inputs) {
	gated := b.inputs(&b.ofGated, b.cfg.FeedForward)
	b.gateAndPrepare(worker, l, in, gated) // (rows, feedForward)
	b.contribute(worker, &l.down, gated)
}
