package kernel

import "math"

// The float64 functions serve the tables that are built once, such as RoPE's angles: they are scalar on every machine.

// Pi over two in three parts of 53 bits each, and its inverse.
const (
	halfPiHigh = 0x1.921fb54442d18p+0
	halfPiMid  = 0x1.1a62633145c07p-54
	halfPiLow  = -0x1.f1976b7ed8fbcp-110
	twoOverPi  = 0x1.45f306dc9c883p-1
)

// SinCos gives the sine and cosine of x radians for |x| <= 2^30, with an absolute error of at most 2^-52; beyond,
// the error grows with x. Infinities and NaN give NaN.
func SinCos(x float64) (sin, cos float64) {
	if x-x != 0 {
		return math.NaN(), math.NaN()
	}
	n := math.RoundToEven(x * twoOverPi)
	r := math.FMA(-n, halfPiHigh, x)
	r = math.FMA(-n, halfPiMid, r)
	r = math.FMA(-n, halfPiLow, r)

	// Taylor on [-pi/4, pi/4]; the first term left out is below 2^-60.
	z := r * r
	s := sinCoefficients[0]
	for _, c := range sinCoefficients[1:] {
		s = math.FMA(s, z, c)
	}
	s = math.FMA(r*z, s, r)
	c := cosCoefficients[0]
	for _, k := range cosCoefficients[1:] {
		c = math.FMA(c, z, k)
	}
	c = math.FMA(z, c, 1)

	switch int64(n) & 3 {
	case 0:
		return s, c
	case 1:
		return c, -s
	case 2:
		return -s, -c
	}
	return -c, s
}

var sinCoefficients = [...]float64{
	1. / 355687428096000, -1. / 1307674368000, 1. / 6227020800, -1. / 39916800, 1. / 362880, -1. / 5040, 1. / 120, -1. / 6,
}

var cosCoefficients = [...]float64{
	-1. / 6402373705728000, 1. / 20922789888000, -1. / 87178291200, 1. / 479001600, -1. / 3628800, 1. / 40320, -1. / 720, 1. / 24, -1. / 2,
}

const (
	ln2High64 = 0x1.62e42fee00000p-1 // 33 bits: its product with an exponent is exact
	ln2Low64  = 0x1.a39ef35793c76p-33
	log2E64   = 0x1.71547652b82fep+0
)

// Pow is x^y for x > 0. Relative error: at most (2 + |y ln x|) * 2^-52. Zero gives 0 for y > 0; below, NaN.
func Pow(x, y float64) float64 {
	switch {
	case y == 0 || x == 1:
		return 1
	case x == 0 && y > 0:
		return 0
	}
	return exp64(y * log64(x))
}

// exp64 is e^x; 0 below the smallest normal number. Error: at most 2 ulp.
func exp64(x float64) float64 {
	switch {
	case x != x:
		return x
	case x < -708:
		return 0
	case x > 709.78:
		return math.Inf(1)
	}
	n := math.RoundToEven(x * log2E64)
	r := math.FMA(-n, ln2High64, x)
	r = math.FMA(-n, ln2Low64, r)
	p := 1.0
	for k := 14.0; k >= 1; k-- {
		p = math.FMA(p, float64(r/k), 1) // 1 + r/1 (1 + r/2 (1 + ...))
	}
	half := int64(n) / 2 // twice, because 2^1024 is no float64
	scale := func(n int64) float64 { return math.Float64frombits(uint64(n+1023) << 52) }
	return p * scale(half) * scale(int64(n)-half)
}

// log64 is the natural logarithm. Error: at most 1 ulp, or 2^-53 absolute near 1.
func log64(x float64) float64 {
	switch {
	case x != x || x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	case x > math.MaxFloat64:
		return x
	}
	e := 0
	if x < 0x1p-1022 {
		x *= 0x1p54
		e = -54
	}
	bits := math.Float64bits(x)
	e += int(bits>>52) - 1023
	m := math.Float64frombits(bits&(1<<52-1) | 1023<<52)
	if m > math.Sqrt2 {
		m /= 2
		e++
	}
	// ln m = 2 atanh(s), a series in s^2 <= 0.0295
	s := (m - 1) / (m + 1)
	z := s * s
	p := 0.0
	for k := 23.0; k >= 3; k -= 2 {
		p = math.FMA(p, z, 1/k)
	}
	f := float64(e)
	low := math.FMA(2*s*z, p, f*ln2Low64)
	return math.FMA(f, ln2High64, float64(2*s)+low)
}
