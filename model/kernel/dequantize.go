package kernel

import "fmt"

// Dequantize writes the values of one GGUF row, src, to dst. They are exact, except that those of formats with minima, and
// of Q6_K, round once.
func Dequantize(f Format, dst []float32, src []byte) {
	if !f.ValidCols(len(dst)) || len(src) != f.RowBytes(len(dst)) {
		panic(fmt.Sprintf("kernel: dequantize %d values of %v from %d bytes", len(dst), f, len(src)))
	}
	values, bytes := f.blockSize(), f.blockBytes()
	for ; len(dst) > 0; dst, src = dst[values:], src[bytes:] {
		switch f {
		case F32:
			dst[0] = f32At(src, 0)
		case F16:
			dst[0] = halfToFloat(u16At(src, 0))
		case BF16:
			dst[0] = brainToFloat(u16At(src, 0))
		case Q8_0:
			d := halfToFloat(u16At(src, 0))
			for i, q := range src[2:34] {
				dst[i] = d * float32(int8(q))
			}
		case Q4_0:
			d := halfToFloat(u16At(src, 0))
			for i, q := range src[2:18] {
				dst[i] = d * float32(int(q&15)-8)
				dst[i+16] = d * float32(int(q>>4)-8)
			}
		case Q4_1:
			d, m := halfToFloat(u16At(src, 0)), halfToFloat(u16At(src, 1))
			for i, q := range src[4:20] {
				dst[i] = float32(d*float32(q&15)) + m
				dst[i+16] = float32(d*float32(q>>4)) + m
			}
		case Q5_0:
			d, high := halfToFloat(u16At(src, 0)), u32At(src[2:], 0)
			for i, q := range src[6:22] {
				dst[i] = d * float32(int(q&15|byte(high>>i&1)<<4)-16)
				dst[i+16] = d * float32(int(q>>4|byte(high>>(i+16)&1)<<4)-16)
			}
		case Q4_K:
			dequantizeMinima(dst, src, nil, src[16:144])
		case Q5_K:
			dequantizeMinima(dst, src, src[16:48], src[48:176])
		case Q6_K:
			d := halfToFloat(u16At(src, 104))
			for b := range superBlock / BlockSize {
				low, high := src[b/4*64+b%2*32:], src[128+b/4*32:]
				for i := range BlockSize {
					q := low[i]>>(b%4/2*4)&15 | high[i]>>(b%4*2)&3<<4
					scale := int8(src[192+2*b+i/16])
					dst[b*BlockSize+i] = float32(d*float32(scale)) * float32(int(q)-32)
				}
			}
		}
	}
}

// dequantizeMinima writes a block of Q4_K or Q5_K: bit b of the high bytes, if there are any, belongs to the b-th 32 values.
func dequantizeMinima(dst []float32, src, high, nibbles []byte) {
	d, dmin := halfToFloat(u16At(src, 0)), halfToFloat(u16At(src, 1))
	for b := range superBlock / BlockSize {
		scale, minimum := scaleAndMinimum(src[4:16], b)
		s, m := d*float32(scale), dmin*float32(minimum)
		for i := range BlockSize {
			q := nibbles[b/2*32+i] >> (b % 2 * 4) & 15
			if high != nil {
				q |= high[i] >> b & 1 << 4
			}
			dst[b*BlockSize+i] = float32(s*float32(q)) - m
		}
	}
}

// scaleAndMinimum takes the b-th pair from the twelve bytes where Q4_K and Q5_K keep eight pairs of 6 bits: the upper two
// bits of the first four pairs' bytes are those of the last four pairs.
func scaleAndMinimum(packed []byte, b int) (scale, minimum byte) {
	if b < 4 {
		return packed[b] & 63, packed[b+4] & 63
	}
	return packed[b+4]&15 | packed[b-4]>>6<<4, packed[b+4]>>4 | packed[b]>>6<<4
}
