package model

// preNormLayer is one layer of the llama family (llama, qwen2, qwen3, smollm3, granite), as one worker sees it:
//
//	x += scale * output(attend(rope(qkv(norm(x)))))
//	x += scale * down(silu(gate(norm(x))) * up(norm(x)))
//
// Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023. Queries and keys are normed before they
// turn in qwen3; the scale is granite's.
func (b *Block) preNormLayer(worker int, l *layer, index int) {
	in := b.inputs(&b.ofHidden, b.cfg.Hidden) // (rows, hidden)
	b.normalise(worker, in, l.attentionNorm.values)
	b.team.Barrier()
	b.project(worker, l, in) // qkv (rows, queries | keys | values)
	b.team.Barrier()
	b.turnAndStore(worker, l, index)
	b.team.Barrier()
	b.attend(worker, index) // attended (rows, heads, headDim)
	b.team.Barrier()
	in = b.inputs(&b.ofAttended, b.cfg.queryDim())
	b.prepare(worker, in, b.attended, b.cfg.queryDim())
	b.team.Barrier()
	from, to := b.multiply(worker, b.product, b.cfg.Hidden, &l.output, in)
	b.addColumns(from, to) // x (rows, hidden)
	b.team.Barrier()

	in = b.inputs(&b.ofHidden, b.cfg.Hidden)
	b.normalise(worker, in, l.ffnNorm.values)
	b.team.Barrier()
	gated := b.inputs(&b.ofGated, b.cfg.FeedForward)
	b.gateAndPrepare(worker, l, in, gated) // (rows, feedForward)
	b.team.Barrier()
	from, to = b.multiply(worker, b.product, b.cfg.Hidden, &l.down, gated)
	b.addColumns(from, to)
	b.team.Barrier()
}

// postNormLayer is one layer of olmo2, as one worker sees it:
//
//	x += norm(output(attend(rope(norm(qkv(x))))))
//	x += norm(down(silu(gate(x)) * up(x)))
//
// OLMo team, "2 OLMo 2 Furious", 2025. Queries and keys are normed over all heads.
func (b *Block) postNormLayer(worker int, l *layer, index int) {
	in := b.inputs(&b.ofHidden, b.cfg.Hidden) // (rows, hidden)
	b.prepare(worker, in, b.pass.x, b.cfg.Hidden)
	b.team.Barrier()
	b.project(worker, l, in) // qkv (rows, queries | keys | values)
	b.team.Barrier()
	b.normaliseQK(worker, l)
	b.team.Barrier()
	b.turnAndStore(worker, l, index)
	b.team.Barrier()
	b.attend(worker, index) // attended (rows, heads, headDim)
	b.team.Barrier()
	in = b.inputs(&b.ofAttended, b.cfg.queryDim())
	b.prepare(worker, in, b.attended, b.cfg.queryDim())
	b.team.Barrier()
	b.multiply(worker, b.product, b.cfg.Hidden, &l.output, in)
	b.team.Barrier()
	b.addNormed(worker, l.attentionPostNorm.values) // x (rows, hidden)
	b.team.Barrier()

	in = b.inputs(&b.ofHidden, b.cfg.Hidden)
	b.prepare(worker, in, b.pass.x, b.cfg.Hidden)
	b.team.Barrier()
	gated := b.inputs(&b.ofGated, b.cfg.FeedForward)
	b.gateAndPrepare(worker, l, in, gated) // (rows, feedForward)
	b.team.Barrier()
	b.multiply(worker, b.product, b.cfg.Hidden, &l.down, gated)
	b.team.Barrier()
	b.addNormed(worker, l.ffnPostNorm.values)
	b.team.Barrier()
}
