package sample

import "math"

// exp is e^x for x <= 0 within 1e-15 relative; below the smallest normal number it is 0. Every operation is one IEEE
// operation or an explicit FMA, so the bits are the same everywhere, which those of math.Exp are not.
func exp(x float64) float64 {
	const (
		log2e   = 0x1.71547652b82fep+0
		ln2High = 0x1.62e42fefa4000p-1 // 39 bits: n*ln2High is exact
		ln2Low  = -0x1.8432a1b0e2634p-43
		round   = 0x1.8p52 // adding it leaves an integer in the low bits
	)
	if !(x >= -708) {
		return 0
	}
	shifted := math.FMA(x, log2e, round)
	n := shifted - round
	r := math.FMA(-n, ln2High, x)
	r = math.FMA(-n, ln2Low, r) // |r| <= ln(2)/2
	// Taylor's series; the first term left out is below 1e-17.
	p := 1.0 / 6227020800
	p = math.FMA(p, r, 1.0/479001600)
	p = math.FMA(p, r, 1.0/39916800)
	p = math.FMA(p, r, 1.0/3628800)
	p = math.FMA(p, r, 1.0/362880)
	p = math.FMA(p, r, 1.0/40320)
	p = math.FMA(p, r, 1.0/5040)
	p = math.FMA(p, r, 1.0/720)
	p = math.FMA(p, r, 1.0/120)
	p = math.FMA(p, r, 1.0/24)
	p = math.FMA(p, r, 1.0/6)
	p = math.FMA(p, r, 0.5)
	p = math.FMA(p, r, 1)
	p = math.FMA(p, r, 1)
	return math.Float64frombits(math.Float64bits(p) + uint64(int64(n))<<52)
}

// log is the natural logarithm of a normal x > 0 within 1e-15, with the same bits everywhere.
func log(x float64) float64 {
	const ln2 = 0x1.62e42fefa39efp-1
	const sqrt2 = 0x1.6a09e667f3bcdp+0
	bits := math.Float64bits(x)
	exponent := int(bits>>52) - 1023
	m := math.Float64frombits(bits&(1<<52-1) | 1023<<52) // [1, 2)
	if m > sqrt2 {
		m *= 0.5
		exponent++
	}
	// log m = 2 atanh(s) with |s| < 0.172.
	s := (m - 1) / (m + 1)
	s2 := s * s
	p := 1.0 / 21
	for k := 19; k >= 1; k -= 2 {
		p = math.FMA(p, s2, 1/float64(k))
	}
	return math.FMA(float64(exponent), ln2, float64(2*s)*p)
}
