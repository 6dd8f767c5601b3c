package kernel

// packRow writes one GGUF row to lane r of its group.
func packRow(f Format, group []byte, r int, row []byte) {
	block, step := f.blockBytes(), f.stepBytes()
	for ; len(row) > 0; row, group = row[block:], group[step:] {
		switch f {
		case F32:
			putU32(group, r, u32At(row, 0))
		case F16, BF16:
			putU16(group, r, u16At(row, 0))
		case Q8_0:
			putU16(group, r, u16At(row, 0))
			packQuads(group[32:], r, row[2:34], 0x80808080)
		case Q4_0:
			putU16(group, r, u16At(row, 0))
			packQuads(group[32:], r, row[2:18], 0)
		case Q4_1:
			putU16(group, r, u16At(row, 0))
			putU16(group, Lanes+r, u16At(row, 1))
			packQuads(group[64:], r, row[4:20], 0)
		case Q5_0:
			putU16(group, r, u16At(row, 0))
			putU32(group[32:], r, spreadBits(u32At(row[2:], 0)))
			packQuads(group[96:], r, row[6:22], 0)
		case Q4_K:
			packMinima(group, r, row)
			for b := range uint(superBlock / BlockSize) {
				packNibbles(group[headBytes+b*4*64:], r, row[16+b/2*32:], b%2*4)
			}
		case Q5_K:
			packMinima(group, r, row)
			for b := range uint(superBlock / BlockSize) {
				integers := group[headBytes+b*5*64:]
				putU32(integers, r, gatherBits(row[16:48], b))
				packNibbles(integers[64:], r, row[48+b/2*32:], b%2*4)
			}
		case Q6_K:
			putU16(group, r, u16At(row, 104))
			for b := range uint(superBlock / BlockSize) {
				scales, integers := group[headScales+b*scalesBytes:], group[headBytes+b*6*64:]
				scales[r], scales[Lanes+r] = row[192+2*b], row[192+2*b+1]
				high := row[128+b/4*32:]
				putU32(integers, r, gatherPairs(high[:16], b%4*2))
				putU32(integers[64:], r, gatherPairs(high[16:32], b%4*2))
				packNibbles(integers[128:], r, row[b/4*64+b%2*32:], b%4/2*4)
			}
		}
	}
}

// packQuads spreads the bytes of src, by fours, over lane r of as many vectors; flip is applied to each four.
func packQuads(dst []byte, r int, src []byte, flip uint32) {
	for j := range len(src) / 4 {
		putU32(dst, Lanes*j+r, u32At(src, j)^flip)
	}
}

// packNibbles writes lane r of four vectors: 32 nibbles, one in each byte of src, shift bits up.
func packNibbles(dst []byte, r int, src []byte, shift uint) {
	const nibbles = 0x0f0f0f0f0f0f0f0f
	dst, src = dst[4*r:][:3*64+4], src[:32]
	first := u64At(src, 0)>>shift&nibbles | u64At(src, 2)>>shift&nibbles<<4
	second := u64At(src, 1)>>shift&nibbles | u64At(src, 3)>>shift&nibbles<<4
	putU32(dst, 0, uint32(first))
	putU32(dst, Lanes, uint32(first>>32))
	putU32(dst, 2*Lanes, uint32(second))
	putU32(dst, 3*Lanes, uint32(second>>32))
}

// packMinima writes lane r of the head of a record of Q4_K or Q5_K.
func packMinima(dst []byte, r int, src []byte) {
	putU16(dst, r, u16At(src, 0))
	putU16(dst, Lanes+r, u16At(src, 1)^0x8000)
	for b := range superBlock / BlockSize {
		scales := dst[headScales+b*scalesBytes:]
		scales[r], scales[Lanes+r] = scaleAndMinimum(src[4:16], b)
	}
}

// spreadBits moves bit 4k+i to bit k of byte i.
func spreadBits(bits uint32) uint32 {
	both, spread := uint64(bits&0xffff)|uint64(bits>>16)<<32, uint64(0) // k below 4, and the others
	for k := range uint(4) {
		spread |= both >> (4 * k) & 0x0000000f0000000f * 0x00204081 & 0x0101010101010101 << k // the product moves bit i to byte i
	}
	return uint32(spread) | uint32(spread>>32)<<4
}

// gatherBits moves bit b of byte 4k+i to bit k of byte i.
func gatherBits(src []byte, b uint) uint32 {
	const bits = 0x0101010101010101
	src = src[:32]
	both := u64At(src, 0)>>b&bits | u64At(src, 1)>>b&bits<<2 | u64At(src, 2)>>b&bits<<4 | u64At(src, 3)>>b&bits<<6
	return uint32(both) | uint32(both>>32)<<1 // the even k, and the odd ones
}

// gatherPairs moves bits b and b+1 of byte 4k+i to bits 2k and 2k+1 of byte i.
func gatherPairs(src []byte, b uint) uint32 {
	const bits = 0x0303030303030303
	src = src[:16]
	both := u64At(src, 0)>>b&bits | u64At(src, 1)>>b&bits<<4
	return uint32(both) | uint32(both>>32)<<2 // the even k, and the odd ones
}
