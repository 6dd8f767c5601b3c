package model

import (
	"github.com/daisy-llm/daisy/model/kernel"
)

// The steps that layers are made of. Workers share the rows of a step, its columns, or its heads: that decides who computes a
// value, never how. What a step touches, it touches inside Share's function: see there.

// A piece is large enough to outweigh that workers meet for it, which takes them about half a microsecond.
const (
	pieceBytes  = 96 << 10 // of weights
	pieceValues = 4 << 10  // of activations
	pieceCached = 16 << 10 // of keys
)

// rows is how many there are in the chunk in hand.
func (b *Block) rows() int { return int(b.pass.rows.Load()) }

// shareRows shares the rows of a step that touches so many values of each.
func (b *Block) shareRows(worker, values int, do func(from, to int)) {
	b.team.Share(worker, b.rows(), pieceValues/max(values, 1), do)
}

// shareGroups shares the groups of a matrix.
func (b *Block) shareGroups(worker int, m *matrix, do func(first, last int)) {
	b.team.Share(worker, m.Groups(), pieceBytes*m.Groups()/m.Bytes(), do)
}

// inputs are the right-hand side of products: the same values in each of the forms that a block's matrices take.
type inputs struct {
	quantized, floats       kernel.Activations
	areQuantized, areFloats bool
}

// inputs views memory as the chunk's rows of so many columns.
func (b *Block) inputs(m *inputMemory, cols int) (in inputs) {
	if in.areQuantized = m.quantized != nil; in.areQuantized {
		in.quantized = b.kernels.Activations(m.quantized, kernel.Q8_0, b.rows(), cols)
	}
	if in.areFloats = m.floats != nil; in.areFloats {
		in.floats = b.kernels.Activations(m.floats, kernel.F32, b.rows(), cols)
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
	b.shareRows(worker, cols, func(from, to int) {
		for t := from; t < to; t++ {
			b.set(in, x, cols, t, 0, cols)
		}
	})
}

// prepareStream makes inputs of the stream's rows as they are.
func (b *Block) prepareStream(worker int, in inputs) {
	hidden := b.cfg.Hidden
	b.shareRows(worker, hidden, func(from, to int) {
		for t := from; t < to; t++ {
			b.set(in, b.pass.x, hidden, t, 0, hidden)
		}
	})
}

// normalise makes inputs of the stream's rows after an RMS norm.
func (b *Block) normalise(worker int, in inputs, norm []float32) {
	hidden, normed := b.cfg.Hidden, b.workers[worker].normed
	b.shareRows(worker, hidden, func(from, to int) {
		for t := from; t < to; t++ {
			b.kernels.RMSNorm(normed, b.pass.x[t*hidden:][:hidden], norm, b.cfg.Epsilon)
			b.set(in, normed, 0, t, 0, hidden)
		}
	})
}

// contribute computes product = m * in + bias, (rows, hidden), and adds it to the stream, unless it is to be normed first.
func (b *Block) contribute(worker int, m *matrix, in inputs) {
	hidden := b.cfg.Hidden
	b.shareGroups(worker, m, func(first, last int) {
		from, to := b.multiplyGroups(b.product, hidden, m, in, first, last)
		if b.cfg.Norms != NormsBefore {
			return
		}
		for t := range b.rows() {
			at := t * hidden
			b.kernels.AddScaled(b.pass.x[at+from:at+to], b.product[at+from:at+to], b.cfg.ResidualScale)
		}
	})
}

// multiplyGroups computes the groups [first, last) of out = m * in + bias, for every row; rows of out are stride apart. It
// gives the columns that these are.
func (b *Block) multiplyGroups(out []float32, stride int, m *matrix, in inputs, first, last int) (from, to int) {
	from, to = first*kernel.Lanes, min(last*kernel.Lanes, m.Rows)
	a := in.floats
	if m.Format.Quantized() {
		a = in.quantized
	}
	rows := b.rows()
	b.kernels.MatMul(out, stride, m.Matrix, first, last, a, 0, rows)
	if m.bias != nil {
		for t := range rows {
			b.kernels.Add(out[t*stride+from:t*stride+to], m.bias[from:to])
		}
	}
	return from, to
}

// project computes queries, keys and values.
func (b *Block) project(worker int, l *layer, in inputs) {
	groups, bytes := 0, 0
	for i := range l.qkv {
		groups, bytes = groups+l.qkv[i].Groups(), bytes+l.qkv[i].Bytes()
	}
	b.team.Share(worker, groups, pieceBytes*groups/bytes, func(first, last int) {
		group, column := 0, 0
		for i := range l.qkv {
			m := &l.qkv[i]
			if from, to := max(first-group, 0), min(last-group, m.Groups()); from < to {
				b.multiplyGroups(b.qkv[column:], b.cfg.qkvDim(), m, in, from, to)
			}
			group, column = group+m.Groups(), column+m.Rows
		}
	})
}

// normaliseQK norms the queries and the keys of a row, all heads together.
func (b *Block) normaliseQK(worker int, l *layer) {
	width, queries, keys := b.cfg.qkvDim(), b.cfg.queryDim(), b.cfg.kvDim()
	b.shareRows(worker, queries+keys, func(from, to int) {
		for t := from; t < to; t++ {
			q := b.qkv[t*width:][:queries]
			k := b.qkv[t*width+queries:][:keys]
			b.kernels.RMSNorm(q, q, l.queryNorm.values, b.cfg.Epsilon)
			b.kernels.RMSNorm(k, k, l.keyNorm.values, b.cfg.Epsilon)
		}
	})
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
	values := group + 2*dim
	b.team.Share(worker, b.rows()*c.KVHeads, pieceValues/values, func(from, to int) {
		for i := from; i < to; i++ {
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
	})
}

// castLots sorts the first n rows into lots that a worker attends with at once: rows that follow each other in a sequence
// go together, so that its keys and values are read less often.
func (b *Block) castLots(n int) {
	lots, reach := b.lots[:0], 0
	for t := 0; t < n; {
		rows := b.rowsTogether(t, n)
		lots = append(lots, lot{t, rows})
		t += rows
		reach = max(reach, int(b.scratch.rows[t-1].position)+1)
	}
	b.lots = lots
	b.pass.lots.Store(int32(len(lots)))
	b.pass.reach.Store(int32(reach))
}

// rowsTogether is how many rows, from t on, are positions of one sequence that follow each other, at most what a worker
// attends with at once, and aligned to that: then few lots end within a tile.
func (b *Block) rowsTogether(t, end int) int {
	rows, n := b.scratch.rows[t:end], 1
	most := attentionRows(b.cfg)
	for n < len(rows) && rows[n].cache == rows[0].cache && rows[n].position == rows[n-1].position+1 && int(rows[n].position)%most != 0 {
		n++
	}
	return n
}

// attend computes what each row's query heads see up to their own position. Workers share the query heads of the lots, as
// heads of keys and values may be fewer than workers; where there are many lots, query heads that see the same keys and
// values stay together.
func (b *Block) attend(worker, index int) {
	c := b.cfg
	group, window := c.Heads/c.KVHeads, 0
	if c.Slides(b.first + LayerIndex(index)) {
		window = c.Window
	}
	lots, together := int(b.pass.lots.Load()), 1
	if lots*c.KVHeads >= 4*b.team.Size() {
		together = group
	}
	heads := c.Heads / together // of a lot, together
	seen := int(b.pass.reach.Load()) * c.HeadDim * together
	b.team.Share(worker, lots*heads, pieceCached/max(seen, 1), func(from, to int) {
		for i := from; i < to; {
			lot := i / heads
			next := min(to, (lot+1)*heads)
			b.attendLot(worker, index, window, b.lots[lot], i%heads*together, (next-lot*heads)*together)
			i = next
		}
	})
}

// attendLot attends with the query heads [head, last) of a lot.
func (b *Block) attendLot(worker, index, window int, lot lot, head, last int) {
	c, w := b.cfg, &b.workers[worker]
	group, r := c.Heads/c.KVHeads, b.scratch.rows[lot.row]
	for head < last {
		kv := head / group
		heads := min(last, (kv+1)*group) - head
		w.attention = kernel.Attention{
			Shape: r.cache.Shape(), Pages: r.cache.Pages(index), Head: kv, Queries: heads, Rows: lot.rows,
			End: int(r.position) + 1, Window: window, Scale: c.AttentionScale, SoftCap: c.AttentionCap,
			QueryStride: c.qkvDim(), OutStride: c.queryDim(),
		}
		q := b.qkv[lot.row*c.qkvDim()+head*c.HeadDim:]
		out := b.attended[lot.row*c.queryDim()+head*c.HeadDim:]
		b.kernels.Attend(out, q, &w.attention, w.scratch)
		head += heads
	}
}

// gateAndPrepare computes activation(gate) * up, and makes inputs of it. Pieces are whole blocks of 32 columns, as inputs
// are.
func (b *Block) gateAndPrepare(worker int, l *layer, in, gated inputs) {
	width := b.cfg.FeedForward
	blocks := (width + kernel.BlockSize - 1) / kernel.BlockSize
	least := pieceBytes * blocks / (l.gate.Bytes() + l.up.Bytes())
	b.team.Share(worker, blocks, least, func(first, last int) {
		from, to := first*kernel.BlockSize, min(last*kernel.BlockSize, width)
		group, end := from/kernel.Lanes, (to+kernel.Lanes-1)/kernel.Lanes
		b.multiplyGroups(b.gate, width, &l.gate, in, group, end)
		b.multiplyGroups(b.up, width, &l.up, in, group, end)
		for t := range b.rows() {
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
	})
}

// addNormed adds the norm of a product to the stream.
func (b *Block) addNormed(worker int, norm []float32) {
	hidden := b.cfg.Hidden
	b.shareRows(worker, hidden, func(from, to int) {
		for t := from; t < to; t++ {
			product := b.product[t*hidden:][:hidden]
			b.kernels.RMSNorm(product, product, norm, b.cfg.Epsilon)
			b.kernels.AddScaled(b.pass.x[t*hidden:][:hidden], product, b.cfg.ResidualScale)
		}
	})
}
