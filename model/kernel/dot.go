package kernel

// productReference multiplies packed groups with a panel of n tokens; out[t*stride+16*g+lane].
func productReference(f Format, w, x []byte, n int, out []float32, stride, cols, groups int) {
	size := f.groupBytes(cols)
	for g := range groups {
		group := w[g*size:][:size]
		for t := range n {
			lanes := out[t*stride+g*Lanes:][:Lanes]
			switch f {
			case F32, F16, BF16:
				for r := range lanes {
					lanes[r] = dotFloats(f, group, x, r, t, n, cols)
				}
			case Q4_K, Q5_K, Q6_K:
				for r := range lanes {
					lanes[r] = dotSuperBlocks(f, group, x, r, t, n)
				}
			default:
				for r := range lanes {
					lanes[r] = dotBlocks(f, group, x, r, t, n)
				}
			}
		}
	}
}

// dotFloats is one row times one token: one FMA a column.
func dotFloats(f Format, group, x []byte, r, t, n, cols int) float32 {
	var sum float32
	for k := range cols {
		var w float32
		switch f {
		case F32:
			w = f32At(group, k*Lanes+r)
		case F16:
			w = halfToFloat(u16At(group, k*Lanes+r))
		case BF16:
			w = brainToFloat(u16At(group, k*Lanes+r))
		}
		sum = FMA32(w, f32At(x, k*n+t), sum)
	}
	return sum
}

// dotBlocks is one row times one token: for each block an exact integer sum, scaled and added with one FMA, and with
// another the minimum.
func dotBlocks(f Format, group, x []byte, r, t, n int) float32 {
	var sum float32
	step := f.stepBytes()
	for ; len(group) > 0; group, x = group[step:], x[recordBytes*n:] {
		values, scales := x[BlockSize*t:][:BlockSize], x[BlockSize*n:]
		scale := float32(halfToFloat(u16At(group, r)) * f32At(scales, t))
		switch f {
		case Q8_0:
			dot := int32(u32At(scales, 4*n+t))
			for j := range 8 {
				w, q := group[32+64*j+4*r:][:4], values[4*j:][:4]
				dot += int32(w[0])*int32(int8(q[0])) + int32(w[1])*int32(int8(q[1])) +
					int32(w[2])*int32(int8(q[2])) + int32(w[3])*int32(int8(q[3]))
			}
			sum = FMA32(float32(dot), scale, sum)
		case Q4_0:
			dot := int32(u32At(scales, 2*n+t)) + dotNibbles(group[32:], values, r)
			sum = FMA32(float32(dot), scale, sum)
		case Q4_1:
			sum = FMA32(float32(dotNibbles(group[64:], values, r)), scale, sum)
			sum = FMA32(halfToFloat(u16At(group, Lanes+r)), f32At(scales, n+t), sum)
		case Q5_0:
			dot := int32(u32At(scales, 3*n+t)) + dotNibbles(group[96:], values, r) + dotUpperBits(group[32:], values, r)
			sum = FMA32(float32(dot), scale, sum)
		}
	}
	return sum
}

// dotSuperBlocks is one row times one token in the formats with blocks of 256. For each 32 columns of Q4_K and Q5_K, two
// FMAs, as in dotBlocks; for each 16 columns of Q6_K, which have a scale of their own, one.
func dotSuperBlocks(f Format, group, x []byte, r, t, n int) float32 {
	var sum float32
	step, size := f.stepBytes(), f.integerBytes()
	for ; len(group) > 0; group = group[step:] {
		d, dmin := halfToFloat(u16At(group, r)), halfToFloat(u16At(group, Lanes+r))
		for b := range superBlock / BlockSize {
			values, scales := x[BlockSize*t:][:BlockSize], x[BlockSize*n:]
			first, second := group[headScales+b*scalesBytes+r], group[headScales+b*scalesBytes+Lanes+r]
			integers := group[headBytes+b*size:][:size]
			activation := f32At(scales, t)
			switch f {
			case Q4_K, Q5_K:
				dot := dotNibbles(integers[size-256:], values, r)
				if f == Q5_K {
					dot += dotUpperBits(integers, values, r)
				}
				scale := float32(float32(d*float32(first)) * activation)
				sum = FMA32(float32(dot), scale, sum)
				sum = FMA32(float32(dmin*float32(second)), f32At(scales, n+t), sum)
			case Q6_K:
				for half, scale := range []int8{int8(first), int8(second)} {
					dot := int32(u32At(scales, (5+half)*n+t)) + dotUpperPairs(integers, values, r, half)
					sum = FMA32(float32(dot), float32(float32(d*float32(scale))*activation), sum)
				}
			}
			x = x[recordBytes*n:]
		}
	}
	return sum
}

// dotNibbles is the sum of row r's 32 unsigned nibbles times the values.
func dotNibbles(w, values []byte, r int) int32 {
	var dot int32
	for j := range 4 {
		b, low, high := w[64*j+4*r:][:4], values[4*j:][:4], values[16+4*j:][:4]
		for i, v := range b {
			dot += int32(v&15)*int32(int8(low[i])) + int32(v>>4)*int32(int8(high[i]))
		}
	}
	return dot
}

// dotUpperBits is the sum of row r's 32 fifth bits times the values.
func dotUpperBits(w, values []byte, r int) int32 {
	var dot int32
	for i, bits := range w[4*r:][:4] {
		for k := range 8 {
			dot += int32(bits>>k&1) * int32(int8(values[4*k+i]))
		}
	}
	return dot << 4
}

// dotUpperPairs is the sum of 16 unsigned integers of 6 bits, of row r and the first or the second half of the columns,
// times the values.
func dotUpperPairs(integers, values []byte, r, half int) int32 {
	var dot int32
	for k := range 4 {
		upper, low, x := integers[64*half+4*r:][:4], integers[128+64*k+4*r:][:4], values[16*half+4*k:][:4]
		for i, v := range low {
			dot += int32(v>>(4*half)&15|upper[i]>>(2*k)&3<<4) * int32(int8(x[i]))
		}
	}
	return dot
}
