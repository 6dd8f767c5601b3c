package model

import (
	"github.com/daisy-llm/daisy/model/kernel"
)

// The steps that layers are made of. Each is one worker's share: of the rows, of the columns, or of the heads of every
// row. A share decides who computes a value, never how.

// inputs are the right-hand side of products: the same values in each of the forms that a block's matrices take.
type inputs struct {
	quantized, floats       kernel.Activations
	areQuantized, areFloats bool
}

// inputs views memory as the chunk's rows of so many columns.
func (b *Block) inputs(m *inputMemory, cols int) (in inputs) {
	if in.areQuantized = m.quantized != nil; in.areQuantized {
		in.quantized = b.kernels.Activations(m.quantized, kernel.Q8_0, b.pass.rows, cols)
	}
	if in.areFloats = m.floats != nil; in.areFloats {
		in.floats = b.kernels.Activations(m.floats, kernel.F32, b.pass.rows, cols)
	}
	return in
}

// set prepares the columns [from, to) of row t from x[t*stride:].
func (b *Block) set(in inputs, x []float32, stride, t, from, to int) {
	if in.areQuantized {
		b.kernels.QuantizeColumns(in.quantized, x, stride, t, t+1, from, to)
	}
	if in.areFloats {
		b.kernels.QuantizeColumns(in.floats, x, stride, t, t+1, from, to)
	}
}

// prepare makes inputs of x, (rows, cols), as it is.
func (b *Block) prepare(worker int, in inputs, x []float32, cols int) {
	for t := worker; t < b.pass.rows; t += b.team.Size() {
		b.set(in, x, cols, t, 0, cols)
	}
}

// normalise makes inputs of the stream's rows after an RMS norm.
func (b *Block) normalise(worker int, in inputs, norm []float32) {
	hidden, normed := b.cfg.Hidden, b.workers[worker].normed
	for t := worker; t < b.pass.rows; t += b.team.Size() {
		b.kernels.RMSNorm(normed, b.pass.x[t*hidden:][:hidden], norm, b.cfg.Epsilon)
		b.set(in, normed, 0, t, 0, hidden)
	}
}

// multiply computes the worker's columns [from, to) of out = m * in + bias, for every row; rows of out are stride apart.
func (b *Block) multiply(worker int, out []float32, stride int, m *matrix, in inputs) (from, to int) {
	groups, n := m.Groups(), b.team.Size()
	first, last := groups*worker/n, groups*(worker+1)/n
	b.multiplyGroups(out, stride, m, in, first, last)
	return min(first*kernel.Lanes, m.Rows), min(last*kernel.Lanes, m.Rows)
}

// multiplyGroups computes the columns of the groups [first, last) of m.
func (b *Block) multiplyGroups(out []float32, stride int, m *matrix, in inputs, first, last int) {
	if first == last {
		return
	}
	a := in.floats
	if m.Format.Quantized() {
		a = in.quantized
	}
	b.kernels.MatMul(out, stride, m.Matrix, first, last, a, 0, b.pass.rows)
	if m.bias == nil {
		return
	}
	from, to := first*kernel.Lanes, min(last*kernel.Lanes, m.Rows)
	for t := range b.pass.rows {
		b.kernels.Add(out[t*stride+from:t*stride+to], m.bias[from:to])
	}
}

// project computes queries, keys and values.
func (b *Block) project(worker int, l *layer, in inputs) {
	column := 0
	for i := range l.qkv {
		b.multiply(worker, b.qkv[column:], b.cfg.qkvDim(), &l.qkv[i], in)
		column += l.qkv[i].Rows
	}
}

// normaliseQK norms the queries and the keys of a row, all heads together.
func (b *Block) normaliseQK(worker int, l *layer) {
	width, queries, keys := b.cfg.qkvDim(), b.cfg.queryDim(), b.cfg.kvDim()
	for t := worker; t < b.pass.rows; t += b.team.Size() {
		q := b.qkv[t*width:][:queries]
		k := b.qkv[t*width+queries:][:keys]
		b.kernels.RMSNorm(q, q, l.queryNorm.values, b.cfg.Epsilon)
		b.kernels.RMSNorm(k, k, l.keyNorm.values, b.cfg.Epsilon)
	}
}

// turnAndStore norms queries and keys where that is done by head, turns them by their position, and puts keys and values
// into the cache.
func (b *Block) turnAndStore(worker int, l *layer, index int) {
	c := b.cfg
	layer := b.first + LayerIndex(index)
	group, dim, pairs := c.Heads/c.KVHeads*c.HeadDim, c.HeadDim, c.Rope.Dims/2
	pairing := kernel.Halves
	if c.Rope.Adjacent {
		pairing = kernel.Consecutive
	}
	cosines, sines := b.cos, b.sin
	if c.Slides(layer) {
		cosines, sines = b.slidingCos, b.slidingSin
	}
	for i := worker; i < b.pass.rows*c.KVHeads; i += b.team.Size() {
		t, head := i/c.KVHeads, i%c.KVHeads
		at := b.qkv[t*c.qkvDim():][:c.qkvDim()]
		q := at[head*group:][:group] // of the query heads that share the key head
		k := at[c.queryDim()+head*dim:][:dim]
		v := at[c.queryDim()+c.kvDim()+head*dim:][:dim]
		if c.QKNorm == PerHead {
			for h := 0; h < group; h += dim {
				b.kernels.RMSNorm(q[h:h+dim], q[h:h+dim], l.queryNorm.values, c.Epsilon)
			}
			b.kernels.RMSNorm(k, k, l.keyNorm.values, c.Epsilon)
		}
		if c.Turns(layer) {
			cos, sin := cosines[t*pairs:][:pairs], sines[t*pairs:][:pairs]
			b.kernels.RoPE(q, dim, cos, sin, pairing)
			b.kernels.RoPE(k, dim, cos, sin, pairing)
		}
		r := b.scratch.rows[t]
		position := int(r.position)
		page := r.cache.Pages(index)[position/kernel.TilePositions]
		b.kernels.Store(r.cache.Shape(), page, head, position, k, v)
	}
}

// attend computes what each row's query heads see up to their own position. Rows that follow each other in a sequence go
// together, so that its keys and values are read less often. A worker takes its share of the query heads, as heads of keys
// and values may be fewer than workers; where the shares differ, they go around from one lot of rows to the next.
func (b *Block) attend(worker, index int) {
	c, w, n := b.cfg, &b.workers[worker], b.team.Size()
	group := c.Heads / c.KVHeads
	window := 0
	if c.Slides(b.first + LayerIndex(index)) {
		window = c.Window
	}
	for t, lot := 0, 0; t < b.pass.rows; lot++ {
		rows := b.rowsTogether(t)
		r := b.scratch.rows[t]
		share := (worker + lot) % n
		last := c.Heads * (share + 1) / n
		for head := c.Heads * share / n; head < last; {
			kv := head / group
			heads := min(last, (kv+1)*group) - head
			w.attention = kernel.Attention{
				Shape: r.cache.Shape(), Pages: r.cache.Pages(index), Head: kv, Queries: heads, Rows: rows,
				End: int(r.position) + 1, Window: window, Scale: c.AttentionScale, SoftCap: c.AttentionCap,
				QueryStride: c.qkvDim(), OutStride: c.queryDim(),
			}
			q := b.qkv[t*c.qkvDim()+head*c.HeadDim:]
			out := b.attended[t*c.queryDim()+head*c.HeadDim:]
			b.kernels.Attend(out, q, &w.attention, w.scratch)
			head += heads
		}
		t += rows
	}
}

// rowsTogether is how many rows, from t on, are positions of one sequence that follow each other, at most what a worker
// attends with at once, and aligned to that: then few lots end within a tile.
func (b *Block) rowsTogether(t int) int {
	rows, n := b.scratch.rows[t:b.pass.rows], 1
	most := attentionRows(b.cfg)
	for n < len(rows) && rows[n].cache == rows[0].cache && rows[n].position == rows[n-1].position+1 && int(rows[n].position)%most != 0 {
		n++
	}
	return n
}

// gateAndPrepare computes the worker's columns of activation(gate) * up, and makes inputs of them. Shares are whole
// blocks of 32 columns, as inputs are.
func (b *Block) gateAndPrepare(worker int, l *layer, in, gated inputs) {
	width, n := b.cfg.FeedForward, b.team.Size()
	blocks := (width + kernel.BlockSize - 1) / kernel.BlockSize
	from := blocks * worker / n * kernel.BlockSize
	to := min(blocks*(worker+1)/n*kernel.BlockSize, width)
	if from >= to {
		return
	}
	first, last := from/kernel.Lanes, (to+kernel.Lanes-1)/kernel.Lanes
	b.multiplyGroups(b.gate, width, &l.gate, in, first, last)
	b.multiplyGroups(b.up, width, &l.up, in, first, last)
	for t := range b.pass.rows {
		gate, up := b.gate[t*width+from:t*width+to], b.up[t*width+from:t*width+to]
		switch b.cfg.Activation {
		case SiLU:
			b.kernels.SwiGLU(gate, gate, up)
		case GELU:
			b.kernels.GELU(gate, gate)
			b.kernels.Mul(gate, up)
		}
		b.set(gated, b.gate, width, t, from, to)
	}
}

// addColumns adds the worker's columns of a product to the stream.
func (b *Block) addColumns(from, to int) {
	if from == to {
		return
	}
	for t := range b.pass.rows {
		at := t * b.cfg.Hidden
		b.kernels.AddScaled(b.pass.x[at+from:at+to], b.product[at+from:at+to], b.cfg.ResidualScale)
	}
}

// addNormed adds the norm of a product to the stream.
func (b *Block) addNormed(worker int, norm []float32) {
	hidden := b.cfg.Hidden
	for t := worker; t < b.pass.rows; t += b.team.Size() {
		product := b.product[t*hidden:][:hidden]
		b.kernels.RMSNorm(product, product, norm, b.cfg.Epsilon)
		b.kernels.AddScaled(b.pass.x[t*hidden:][:hidden], product, b.cfg.ResidualScale)
	}
}
