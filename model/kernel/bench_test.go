package kernel

import (
	"fmt"
	"testing"
)

// BenchmarkMatrixVector reads weights that are in no cache: the figure to compare is the memory's bandwidth.
func BenchmarkMatrixVector(b *testing.B) {
	const rows, cols = 4096, 4096
	for _, f := range allFormats {
		m := NewMatrix(Aligned(PackedSize(f, rows, cols)), f, rows, cols)
		m.Pack(0, m.Groups(), ordinaryRows(newRandom(1), f, rows, cols))
		x, out := gaussian(newRandom(2), cols), make([]float32, rows)
		memory := Aligned(ActivationBytes(f, 1, cols))
		for _, s := range fastSets() {
			b.Run(fmt.Sprintf("%v/%s", f, s.Name), func(b *testing.B) {
				a := s.Activations(memory, f, 1, cols)
				b.SetBytes(int64(m.Bytes()))
				for b.Loop() {
					s.Quantize(a, x, cols, 0, 1)
					s.MatMul(out, rows, m, 0, m.Groups(), a, 0, 1)
				}
			})
		}
	}
}

// BenchmarkMatrixMatrix reports products of 512 tokens in billions of operations a second.
func BenchmarkMatrixMatrix(b *testing.B) {
	const rows, tokens = 1536, 512
	for _, f := range allFormats {
		cols := wholeBlocks(f, 576)
		m := NewMatrix(Aligned(PackedSize(f, rows, cols)), f, rows, cols)
		m.Pack(0, m.Groups(), ordinaryRows(newRandom(1), f, rows, cols))
		x, out := gaussian(newRandom(2), tokens*cols), make([]float32, tokens*rows)
		memory := Aligned(ActivationBytes(f, tokens, cols))
		for _, s := range fastSets() {
			b.Run(fmt.Sprintf("%v/%s", f, s.Name), func(b *testing.B) {
				a := s.Activations(memory, f, tokens, cols)
				for b.Loop() {
					s.Quantize(a, x, cols, 0, tokens)
					s.MatMul(out, rows, m, 0, m.Groups(), a, 0, tokens)
				}
				b.ReportMetric(2*rows*float64(cols)*tokens*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GOPS")
			})
		}
	}
}

// BenchmarkAttend is SmolLM2's: three query heads to a head of keys and values; one position, as in decoding, or many.
func BenchmarkAttend(b *testing.B) {
	shape := PageShape{F16, 1, 64, 64}
	for _, n := range []int{64, 1024} {
		for _, rows := range []int{1, 8, 32} {
			h := newHistory(Best(), newRandom(1), shape, n)
			q, out := gaussian(newRandom(2), rows*3*64), make([]float32, rows*3*64)
			at := &Attention{Shape: shape, Pages: h.pages, Queries: 3, Rows: rows, End: n - rows + 1, Scale: 0.125, QueryStride: 3 * 64, OutStride: 3 * 64}
			scratch := NewAttentionScratch(shape, rows*3)
			for _, s := range fastSets() {
				b.Run(fmt.Sprintf("%d/rows=%d/%s", n, rows, s.Name), func(b *testing.B) {
					b.SetBytes(int64(rows * n * 64 * 2 * 2))
					for b.Loop() {
						s.Attend(out, q, at, scratch)
					}
				})
			}
		}
	}
}

func BenchmarkVectors(b *testing.B) {
	const n = 1536
	r := newRandom(1)
	v := [4][]float32{gaussian(r, n), gaussian(r, n), gaussian(r, n), gaussian(r, n)}
	memory := Aligned(ActivationBytes(Q4_1, 1, n))
	for _, s := range fastSets() {
		for _, op := range vectorOperations {
			b.Run(op.name+"/"+s.Name, func(b *testing.B) {
				for b.Loop() {
					op.run(s, v[0], v[1], v[2], v[3])
				}
			})
		}
		b.Run("Quantize/"+s.Name, func(b *testing.B) {
			a := s.Activations(memory, Q4_1, 1, n)
			for b.Loop() {
				s.Quantize(a, v[0], n, 0, 1)
			}
		})
	}
}

func BenchmarkTeam(b *testing.B) {
	for _, n := range []int{1, 2} {
		team := startTeam(b, n)
		b.Run(fmt.Sprintf("Do/%d", n), func(b *testing.B) {
			task := func(int) {}
			for b.Loop() {
				team.Do(task)
			}
		})
		b.Run(fmt.Sprintf("Share/%d", n), func(b *testing.B) {
			team.Do(func(worker int) {
				for range b.N {
					team.Share(worker, n, 1, func(int, int) {})
				}
			})
		})
	}
}

// BenchmarkDecode is a whole token of a model with SmolLM2-135M's shape, but for its embedding: what package model adds is
// bookkeeping.
func BenchmarkDecode(b *testing.B) {
	const layers, hidden, inner, heads, kvHeads, headDim, vocabulary, context = 30, 576, 1536, 9, 3, 64, 49152, 128
	r := newRandom(1)
	matrix := func(rows, cols int) Matrix {
		m := NewMatrix(Aligned(PackedSize(Q4_1, rows, cols)), Q4_1, rows, cols)
		m.Pack(0, m.Groups(), ordinaryRows(r, Q4_1, rows, cols))
		return m
	}
	shape := PageShape{F16, kvHeads, headDim, headDim}
	type layer struct {
		norm                   []float32
		qkv, o, gate, up, down Matrix
		pages                  []Page
	}
	var model []layer
	for range layers {
		l := layer{gaussian(r, hidden), matrix(hidden+2*kvHeads*headDim, hidden), matrix(hidden, hidden),
			matrix(inner, hidden), matrix(inner, hidden), matrix(hidden, inner), nil}
		for range context / TilePositions {
			l.pages = append(l.pages, Page(Aligned(shape.Bytes())))
		}
		model = append(model, l)
	}
	head := matrix(vocabulary, hidden)
	cos, sin := gaussian(r, headDim/2), gaussian(r, headDim/2)
	start := gaussian(r, hidden)

	for _, s := range fastSets() {
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/%d", s.Name, workers), func(b *testing.B) {
				team := startTeam(b, workers)
				x, qkv, mixed := make([]float32, hidden), make([]float32, hidden+2*kvHeads*headDim), make([]float32, hidden)
				gate, up, logits := make([]float32, inner), make([]float32, inner), make([]float32, vocabulary)
				wide := Aligned(ActivationBytes(Q4_1, 1, inner))
				narrow := Aligned(ActivationBytes(Q4_1, 1, hidden))
				normed, part := make([]float32, hidden), make([]float32, hidden)
				own := make([]*AttentionScratch, workers)
				for w := range own {
					own[w] = NewAttentionScratch(shape, heads)
				}
				position := 0
				step := func(w int) {
					me := own[w]
					narrow := s.Activations(narrow, Q4_1, 1, hidden)
					wide := s.Activations(wide, Q4_1, 1, inner)
					alone := func(do func()) { team.Share(w, 1, 1, func(int, int) { do() }) }
					residual := func(m Matrix, a Activations) {
						team.Share(w, m.Groups(), 4, func(g0, g1 int) {
							s.MatMul(part, hidden, m, g0, g1, a, 0, 1)
							s.Add(x[g0*16:g1*16], part[g0*16:g1*16])
						})
					}
					norm := func(weights []float32) {
						s.RMSNorm(normed, x, weights, 1e-5)
						s.Quantize(narrow, normed, hidden, 0, 1)
					}
					for i := range model {
						l := &model[i]
						alone(func() { norm(l.norm) })
						team.Share(w, l.qkv.Groups(), 4, func(g0, g1 int) {
							s.MatMul(qkv, len(qkv), l.qkv, g0, g1, narrow, 0, 1)
						})
						alone(func() {
							s.RoPE(qkv[:hidden+kvHeads*headDim], headDim, cos, sin, Consecutive)
							for h := range kvHeads {
								s.Store(shape, l.pages[position/TilePositions], h, position, qkv[hidden+h*headDim:][:headDim], qkv[hidden+(kvHeads+h)*headDim:][:headDim])
							}
						})
						team.Share(w, heads, 4, func(h0, h1 int) {
							for h0 < h1 {
								kv := h0 / (heads / kvHeads)
								end := min(h1, (kv+1)*(heads/kvHeads))
								s.Attend(mixed[h0*headDim:end*headDim], qkv[h0*headDim:end*headDim],
									&Attention{Shape: shape, Pages: l.pages, Head: kv, Queries: end - h0, Rows: 1, End: position + 1, Scale: 0.125}, me)
								h0 = end
							}
						})
						alone(func() { s.Quantize(narrow, mixed, hidden, 0, 1) })
						residual(l.o, narrow)
						alone(func() { norm(l.norm) })
						team.Share(w, l.gate.Groups(), 4, func(g0, g1 int) {
							g0, g1 = g0&^1, g1&^1 // whole blocks of 32
							s.MatMul(gate, inner, l.gate, g0, g1, narrow, 0, 1)
							s.MatMul(up, inner, l.up, g0, g1, narrow, 0, 1)
							s.SwiGLU(gate[g0*16:g1*16], gate[g0*16:g1*16], up[g0*16:g1*16])
							s.QuantizeColumns(wide, gate, inner, 0, 1, g0*16, g1*16)
						})
						residual(l.down, wide)
					}
					alone(func() { norm(model[0].norm) })
					team.Share(w, head.Groups(), 4, func(g0, g1 int) {
						s.MatMul(logits, vocabulary, head, g0, g1, narrow, 0, 1)
					})
				}
				for b.Loop() {
					copy(x, start)
					team.Do(step)
					s.ArgMax(logits)
					position = (position + 1) % context
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	}
}
