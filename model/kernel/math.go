package kernel

import "math"

// The functions of this file are the definition of what the assembly computes: each is a fixed sequence of float32
// operations, with explicit FMA. Errors are relative, in units in the last place (ulp), found by sweeping all arguments.

// FMA32 is a*b + c with a single rounding.
//
// The product of two float32 is exact in float64. Their sum with c is rounded to odd there, which makes the second
// rounding, to float32, the only one that counts (Boldo and Melquiond, 2008). Rounding math.FMA would round twice.
func FMA32(a, b, c float32) float32 {
	p := float64(a) * float64(b)
	z := float64(c)
	s := p + z
	v := s - p
	e := (p - (s - v)) + (z - v) // s + e == p + z, exactly (Knuth's TwoSum); NaN when s is not finite
	if e < 0 || e > 0 {
		if u := math.Float64bits(s); u&1 == 0 {
			if (e > 0) == (s > 0) {
				u++
			} else {
				u--
			}
			s = math.Float64frombits(u)
		}
	}
	return float32(s)
}

const (
	expLow  = -87.25     // below, the result is 0: it would be near the smallest normal number
	expHigh = 88.722832  // above, the result is +Inf
	log2E   = 1.44269502 // float32(1 / ln 2)
	ln2High = 0.693145752
	ln2Low  = 1.42860677e-06
)

// expCoefficients is the polynomial of e^r for |r| <= ln(2)/2, highest power first.
var expCoefficients = [7]float32{0.00138145371, 0.00836874545, 0.0416683927, 0.166665211, 0.499999940, 1, 1}

// Exp is e^x; 0 for x < -87.25, +Inf for x > 88.722832. Error: at most 1 ulp.
func Exp(x float32) float32 {
	switch {
	case x != x:
		return x
	case x < expLow:
		return 0
	case x > expHigh:
		return float32(math.Inf(1))
	}
	n := float32(math.RoundToEven(float64(float32(x * log2E))))
	r := FMA32(-n, ln2High, x)
	r = FMA32(-n, ln2Low, r)
	p := expCoefficients[0]
	for _, c := range expCoefficients[1:] {
		p = FMA32(p, r, c)
	}
	return math.Float32frombits(math.Float32bits(p) + uint32(int32(n))<<23)
}

const tanhSplit = 0.625 // below, a polynomial; above, by way of Exp

// tanhCoefficients is (tanh(x)-x)/x^3 as a polynomial in x^2 for |x| < tanhSplit, highest power first.
var tanhCoefficients = [5]float32{-0.00570499245, 0.0206390917, -0.0537397154, 0.133314416, -0.333332807}

// Tanh is the hyperbolic tangent. Error: at most 1.5 ulp.
func Tanh(x float32) float32 {
	a := abs32(x)
	if a < tanhSplit {
		z := x * x
		p := tanhCoefficients[0]
		for _, c := range tanhCoefficients[1:] {
			p = FMA32(p, z, c)
		}
		return FMA32(z*p, x, x)
	}
	return copySign(1-2/(Exp(a+a)+1), x)
}

const (
	erfSplit = 1
	erfOne   = 4 // from here on erf is 1 in float32
)

// erfSmall is (erf(x)-x)/x as a polynomial in x^2 for |x| < erfSplit, highest power first.
var erfSmall = [7]float32{7.85386146e-05, -0.000801019371, 0.00518832775, -0.0268538129, 0.112835854, -0.376126260, 0.128379166}

// erfLarge is ln(1-erf(x)) for erfSplit <= x <= erfOne, highest power first.
var erfLarge = [7]float32{0.000185572665, -0.00293959351, 0.0218052622, -0.103037253, -0.638225794, -1.12703991, -0.000353740732}

// Erf is the error function. Error: at most 1.5 ulp.
func Erf(x float32) float32 {
	a := abs32(x)
	if a < erfSplit {
		z := x * x
		p := erfSmall[0]
		for _, c := range erfSmall[1:] {
			p = FMA32(p, z, c)
		}
		return FMA32(p, x, x)
	}
	if a > erfOne {
		a = erfOne
	}
	p := erfLarge[0]
	for _, c := range erfLarge[1:] {
		p = FMA32(p, a, c)
	}
	return copySign(1-Exp(p), x)
}

// Log is the natural logarithm: -Inf for 0, NaN below. Error: at most 0.5001 ulp.
func Log(x float32) float32 { return float32(log64(float64(x))) }

func abs32(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

func copySign(x, sign float32) float32 {
	const bit = 1 << 31
	return math.Float32frombits(math.Float32bits(x)&^bit | math.Float32bits(sign)&bit)
}

func sqrt32(x float32) float32 { return float32(math.Sqrt(float64(x))) }

// max32 is a if a > b, else b: what MAXPS does with a NaN or two zeros.
func max32(a, b float32) float32 {
	if a > b {
		return a
	}
	return b
}
