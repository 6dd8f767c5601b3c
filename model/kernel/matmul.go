package kernel

import "fmt"

// chunkBytes of weights stay in the second-level cache while the panels of tokens pass over them. It also bounds one
// assembly call to well below a millisecond: a garbage collection cannot interrupt one.
const chunkBytes = 128 << 10

// MatMul multiplies the groups [g0, g1) of m with the tokens [from, to) of a, which is prepared for m's format:
//
//	out[t*stride+r] = sum over k of m[r][k] * a[t][k]    for rows r of those groups
//
// A value's bits do not depend on the ranges. The token range is whole panels: all of a, or what Share gives a worker.
func (s *Set) MatMul(out []float32, stride int, m Matrix, g0, g1 int, a Activations, from, to int) {
	if a.Cols != m.Cols || a.quantized != m.Format.Quantized() || stride < m.Rows && a.Tokens > 1 {
		panic(fmt.Sprintf("kernel: product of %v %dx%d with %dx%d, stride %d", m.Format, m.Rows, m.Cols, a.Tokens, a.Cols, stride))
	}
	if g0 < 0 || g1 > m.Groups() || from < 0 || to > a.Tokens {
		panic(fmt.Sprintf("kernel: product of groups %d-%d of %d, tokens %d-%d of %d", g0, g1, m.Groups(), from, to, a.Tokens))
	}
	if g0 >= g1 || from >= to {
		return
	}
	p0, p1 := a.panelOf(from), a.panelOf(to-1)+1
	if a.panelStart(p0) != from || a.panelStart(p1) != to {
		panic(fmt.Sprintf("kernel: product of tokens %d-%d, which are not whole panels of %d", from, to, a.Tokens))
	}
	if s.tiled(m.Format, a.Tokens) {
		s.multiplyTiles(out, stride, m, g0, g1, a, p0, p1)
		return
	}
	size := m.Format.groupBytes(m.Cols)
	chunk := max(1, chunkBytes/size)
	full := min(g1, m.Rows/Lanes)
	for g := g0; g < full; g += chunk {
		end := min(g+chunk, full)
		for p := p0; p < p1; p++ {
			first, n, panel := a.panel(p)
			s.product(m.Format, m.data[g*size:end*size], panel, n, out[first*stride+g*Lanes:], stride, m.Cols, end-g)
		}
	}
	if full < g1 { // the last group is not full: its padding must not reach out
		s.productLast(out, stride, m, a, p0, p1)
	}
}

// With few tokens, tiles do not outweigh what it takes to expand the weights for them.
const (
	tiledTokens = 32
	tiledWidth  = 16 // tokens in a panel, at most
)

// tiled says whether multiplyTiles multiplies weights of format f with so many tokens.
func (s *Set) tiled(f Format, tokens int) bool {
	return s.tiles && f.Quantized() && tokens >= tiledTokens
}

// productLast multiplies the last, partly filled group.
func (s *Set) productLast(out []float32, stride int, m Matrix, a Activations, p0, p1 int) {
	g := m.Groups() - 1
	size := m.Format.groupBytes(m.Cols)
	var tile [maxWidth * Lanes]float32
	for p := p0; p < p1; p++ {
		first, n, panel := a.panel(p)
		s.product(m.Format, m.data[g*size:], panel, n, tile[:], Lanes, m.Cols, 1)
		for t := range n {
			copy(out[(first+t)*stride+g*Lanes:][:m.Rows-g*Lanes], tile[t*Lanes:])
		}
	}
}

// Share gives the tokens of worker w of n, in whole panels and as equal as these allow; it may be empty.
func (a *Activations) Share(w, n int) (from, to int) {
	return a.panelStart(a.panels * w / n), a.panelStart(a.panels * (w + 1) / n)
}
