//go:build !purego

package kernel

import "unsafe"

const (
	// partBlocks of 32 columns are expanded at a time: with a panel's activations they fit the first-level cache.
	partBlocks = 24

	// callPanels bounds one assembly call to a fraction of a millisecond.
	callPanels = 128

	// Where the columns make so many parts, the sums of some groups are kept together from one part to the next. In out they
	// may lie far apart, more than a cache has room for, or at distances that fall into few of its sets. With fewer parts it is
	// not worth the copy.
	nearParts  = 3
	nearGroups = 8
	nearPanels = 16

	cacheLineBytes = 64
)

// tiler multiplies one group of 16 rows after another, in a part of the columns.
type tiler struct {
	m        Matrix
	a        Activations
	from, to int // records along k

	memory [2*tileBytes + partBlocks*expandedBytes + cacheLineBytes]byte // two tiles, and a group's part expanded
	skip   uintptr                                                       // to a cache line's start: rows in two of them take twice as long
}

// align finds the cache line at which memory begins to be used, where t lies now.
func (t *tiler) align() { t.skip = -uintptr(unsafe.Pointer(&t.memory)) % cacheLineBytes }

// multiplyTiles multiplies the groups [g0, g1) of m with the panels [p0, p1) of a by tiles of AMX: it is MatMul for many tokens.
// Part by part of the columns, a group's weights are expanded once and multiplied with all panels.
func (s *Set) multiplyTiles(out []float32, stride int, m Matrix, g0, g1 int, a Activations, p0, p1 int) {
	records := m.Format.steps(m.Cols)
	most := partBlocks * BlockSize / m.Format.blockSize()
	if parts := (records + most - 1) / most; parts < nearParts {
		multiplyTilesInPlace(out, stride, m, g0, g1, a, p0, p1, records, parts)
	} else {
		multiplyTilesNear(out, stride, m, g0, g1, a, p0, p1, records, parts)
	}
}

// multiplyTilesNear keeps the sums of a few groups and panels from one part of the columns to the next, and then copies them to out.
func multiplyTilesNear(out []float32, stride int, m Matrix, g0, g1 int, a Activations, p0, p1, records, parts int) {
	var sums [nearGroups][nearPanels * tiledWidth * Lanes]float32
	t := tiler{m: m, a: a}
	t.align()
	for ; p0 < p1; p0 += nearPanels {
		end := min(p0+nearPanels, p1)
		start := a.panelStart(p0)
		for first := g0; first < g1; first += nearGroups {
			last := min(first+nearGroups, g1)
			for part := range parts {
				t.from, t.to = records*part/parts, records*(part+1)/parts
				for g := first; g < last; g++ {
					t.expand(g)
					t.multiply(sums[g-first][:], Lanes, p0, end)
				}
			}
			rows := min(last*Lanes, m.Rows) - first*Lanes // the last group may not be full: its padding must not reach out
			for i := range a.panelStart(end) - start {
				line := out[(start+i)*stride+first*Lanes:][:rows]
				for g := 0; g*Lanes < rows; g++ {
					copy(line[g*Lanes:], sums[g][i*Lanes:][:Lanes])
				}
			}
		}
	}
}

// multiplyTilesInPlace has sums wait in out from one part of the columns to the next.
func multiplyTilesInPlace(out []float32, stride int, m Matrix, g0, g1 int, a Activations, p0, p1, records, parts int) {
	t := tiler{m: m, a: a}
	t.align()
	full := min(g1, m.Rows/Lanes)
	for part := range parts {
		t.from, t.to = records*part/parts, records*(part+1)/parts
		for g := g0; g < full; g++ {
			t.expand(g)
			t.multiply(out[a.panelStart(p0)*stride+g*Lanes:], stride, p0, p1)
		}
	}
	if full == g1 {
		return
	}
	var tile [tiledWidth * Lanes]float32 // the last group is not full: its padding must not reach out
	for p := p0; p < p1; p++ {
		for part := range parts {
			t.from, t.to = records*part/parts, records*(part+1)/parts
			t.expand(full)
			t.multiply(tile[:], Lanes, p, p+1)
		}
		first, n, _ := a.panel(p)
		for i := range n {
			copy(out[(first+i)*stride+full*Lanes:][:m.Rows-full*Lanes], tile[i*Lanes:])
		}
	}
}

// spare is the memory for tiles, expanded that for weights.
func (t *tiler) spare() []byte    { return t.memory[t.skip:][:2*tileBytes] }
func (t *tiler) expanded() []byte { return t.memory[t.skip:][2*tileBytes:][:partBlocks*expandedBytes] }

// expand prepares the weights of a group. It is no leaf, nor is multiply: see Set.quantize.
//
//go:noinline
func (t *tiler) expand(group int) {
	f, records := t.m.Format, t.to-t.from
	size, step := f.groupBytes(t.m.Cols), f.stepBytes()
	w := t.m.data[group*size:][:size][t.from*step : t.to*step]
	expandAMX(f, at(t.expanded()[:t.blocks()*expandedBytes]), at(w), records)
}

// blocks is the number of blocks of 32 columns in the part.
func (t *tiler) blocks() int { return (t.to - t.from) * t.m.Format.blockSize() / BlockSize }

// multiply multiplies the group that is expanded with the panels [p0, p1); their sums begin at out.
//
//go:noinline
func (t *tiler) multiply(out []float32, stride, p0, p1 int) {
	first := 0
	if t.from == 0 {
		first = 1
	}
	block := t.from * t.m.Format.blockSize() / BlockSize // where the part begins
	for p := p0; p < p1; {
		n, end := t.a.panelStart(p+1)-t.a.panelStart(p), min(p1, p+callPanels)
		if wider := t.a.widerPanels(); p < wider { // one call has panels of one width
			end = min(end, wider)
		}
		_, _, x := t.a.panel(p)
		lines := out[(t.a.panelStart(p)-t.a.panelStart(p0))*stride:]
		_ = lines[:(n*(end-p)-1)*stride+Lanes]
		part := x[block*recordBytes*n:][:t.blocks()*recordBytes*n]
		tilesAMX(t.m.Format, n, at(t.expanded()), at(part), at(lines), at(t.spare()),
			4*stride, t.blocks(), end-p, len(x), first)
		p = end
	}
}
