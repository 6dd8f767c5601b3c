//go:build !purego

package kernel

// scores takes a few query heads at a time, as many as there are registers for.
//
//go:noinline
func (s *Set) scores(f Format, scores, q []float32, keys []byte, dim, n int, scale float32) {
	_ = keys[:TilePositions*dim*f.blockBytes()]
	if s.isa == isaReference {
		scoresReference(f, scores, q, keys, dim, n, scale)
		return
	}
	for limit := s.attentionHeads(); n > 0; {
		heads := min(n, limit)
		out, query := at(scores[:heads*TilePositions]), at(q[:heads*dim])
		switch {
		case s.isa == isaAVX512 && f == F16:
			scoresF16AVX512(heads, out, query, at(keys), dim, scale)
		case s.isa == isaAVX512:
			scoresF32AVX512(heads, out, query, at(keys), dim, scale)
		case f == F16:
			scoresF16AVX2(heads, out, query, at(keys), dim, scale)
		default:
			scoresF32AVX2(heads, out, query, at(keys), dim, scale)
		}
		n -= heads
		scores, q = scores[heads*TilePositions:], q[heads*dim:]
	}
}

// values takes a few query heads at a time. It fetches next, the next tile's keys, to the cache meanwhile.
//
//go:noinline
func (s *Set) values(f Format, out, weights []float32, values, next []byte, from, to, width, n int) {
	if s.isa == isaReference {
		valuesReference(f, out, weights, values, from, to, width, n)
		return
	}
	start := at(values[from*width*f.blockBytes() : to*width*f.blockBytes()])
	for limit := s.attentionHeads(); n > 0; {
		heads := min(n, limit)
		dst, weight := at(out[:heads*width]), at(weights[:heads*TilePositions][from:])
		switch {
		case s.isa == isaAVX512 && f == F16:
			valuesF16AVX512(heads, dst, weight, start, at(next), width, to-from)
		case s.isa == isaAVX512:
			valuesF32AVX512(heads, dst, weight, start, at(next), width, to-from)
		case f == F16:
			valuesF16AVX2(heads, dst, weight, start, at(next), width, to-from)
		default:
			valuesF32AVX2(heads, dst, weight, start, at(next), width, to-from)
		}
		n -= heads
		out, weights = out[heads*width:], weights[heads*TilePositions:]
	}
}

// attentionHeads is the most query heads one call of the assembly takes.
func (s *Set) attentionHeads() int {
	if s.isa == isaAVX512 {
		return attentionHeadsAVX512
	}
	return attentionHeadsAVX2
}

func (s *Set) softmaxTile(scores []float32, weights []weight) {
	_ = scores[:len(weights)*TilePositions]
	switch s.isa {
	case isaAVX512:
		softmaxTileAVX512(at(scores), &weights[0].maximum, len(weights))
	case isaAVX2, isaAVXVNNI:
		softmaxTileAVX2(at(scores), &weights[0].maximum, len(weights))
	default:
		softmaxTileReference(scores, weights)
	}
}

func (s *Set) merge(total, part []float32, weights, parts []weight) {
	width := len(total) / len(weights)
	_, _ = part[:len(weights)*width], parts[:len(weights)]
	switch s.isa {
	case isaAVX512:
		mergeAVX512(at(total), at(part), &weights[0].maximum, &parts[0].maximum, width, len(weights))
	case isaAVX2, isaAVXVNNI:
		mergeAVX2(at(total), at(part), &weights[0].maximum, &parts[0].maximum, width, len(weights))
	default:
		mergeReference(total, part, weights, parts)
	}
}
