package kernel

// Slots visits the memory of a page that belongs to the slots [from, to), in order, as runs of n bytes that begin at a byte of
// the page: (to-from) * Bytes / TilePositions bytes in all, padding included.
func (p PageShape) Slots(from, to int, run func(at, n int)) {
	p.check()
	if from == 0 && to == TilePositions {
		run(0, p.Bytes())
		return
	}
	size := p.Format.blockBytes()
	row := p.valueLanes() * size
	for head := range p.Heads {
		at := head * p.headBytes()
		for group := from / Lanes; group*Lanes < to; group++ {
			first, last := max(from-group*Lanes, 0), min(to-group*Lanes, Lanes)
			keys := at + group*Lanes*p.KeyDim*size
			if last-first == Lanes {
				run(keys, Lanes*p.KeyDim*size)
				continue
			}
			for d := range p.KeyDim {
				run(keys+(d*Lanes+first)*size, (last-first)*size)
			}
		}
		run(at+p.keyBytes()+from*row, (to-from)*row)
	}
}
