package kernel

import "math"

// halfToFloat gives the value of an IEEE binary16, exactly; a NaN becomes quiet.
func halfToFloat(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exponent := uint32(h >> 10 & 31)
	fraction := uint32(h & 0x3ff)
	switch {
	case exponent == 0: // zero or subnormal: fraction * 2^-24
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*(1.0/(1<<24))))
	case exponent < 31:
		return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
	case fraction == 0:
		return math.Float32frombits(sign | 0x7f800000)
	}
	return math.Float32frombits(sign | 0x7fc00000 | fraction<<13)
}

// floatToHalf rounds to the nearest binary16, ties to even; what is too large becomes infinite.
func floatToHalf(f float32) uint16 {
	b := math.Float32bits(f)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000: // NaN: keep the upper payload, quiet
		return sign | 0x7e00 | uint16(b>>13&0x3ff)
	case b >= 0x47800000: // 2^16 and more
		return sign | 0x7c00
	case b < 0x38800000: // below 2^-14: a multiple of 2^-24
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(b))*(1<<24)))
	}
	b += 0xfff + b>>13&1 // may carry into the exponent, and so to infinity
	return sign | uint16((b-0x38000000)>>13)
}

// brainToFloat gives the value of a bfloat16, exactly.
func brainToFloat(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }
