package kernel

import (
	"math"
	"math/big"
	"testing"
)

func TestFMA32(t *testing.T) {
	r := newRandom(1)
	check := func(a, b, c float32) {
		t.Helper()
		var p, s big.Float
		p.SetPrec(600).Mul(big.NewFloat(float64(a)), big.NewFloat(float64(b)))
		s.SetPrec(600).Add(&p, big.NewFloat(float64(c)))
		want, _ := s.Float32()
		if got := FMA32(a, b, c); got != want {
			t.Fatalf("%x*%x+%x is %x, want %x", a, b, c, got, want)
		}
	}
	for range 100000 {
		exponent := func(low, n int) uint32 { return uint32(low+r.IntN(n)) << 23 }
		a := math.Float32frombits(r.Uint32()&0x807fffff | exponent(1, 150))
		b := math.Float32frombits(r.Uint32()&0x807fffff | exponent(60, 40))
		check(a, b, math.Float32frombits(r.Uint32()&0x807fffff|exponent(0, 200)))
		check(a, b, -a*b*(1+float32(r.IntN(3)-1)/(1<<23))) // cancels
		check(a, b, float32(math.Ldexp(float64(a*b), r.IntN(60)-30)))
		check(1+1.0/(1<<12), 1+1.0/(1<<12), math.Float32frombits(r.Uint32()&0xff|exponent(80, 30))) // near half way
	}
	// The exact value is just above half way between two float32: rounding through float64 first would lose it.
	check(1+1.0/(1<<12), 1+1.0/(1<<12), 0x1p-60)

	for _, c := range [][4]float32{
		{infinity, 1, 1, infinity}, {1, 1, -infinity, -infinity}, {math.MaxFloat32, 2, -infinity, -infinity},
		{math.MaxFloat32, 2, 0, infinity}, {math.MaxFloat32, -2, 0, -infinity},
	} {
		if got := FMA32(c[0], c[1], c[2]); got != c[3] {
			t.Errorf("%g*%g+%g is %g, want %g", c[0], c[1], c[2], got, c[3])
		}
	}
	if got := FMA32(infinity, 1, -infinity); got == got {
		t.Errorf("Inf-Inf is %g", got)
	}
	if got := FMA32(negativeZero, 1, negativeZero); math.Float32bits(got) != 1<<31 {
		t.Errorf("-0+-0 is %x", math.Float32bits(got))
	}
}

// TestFloat32Functions holds the functions to the errors that their comments state, over all magnitudes.
func TestFloat32Functions(t *testing.T) {
	for _, c := range []struct {
		name string
		f    func(float32) float32
		want func(float64) float64
		ulp  float64
		low  float32 // results below this magnitude may be 0
	}{
		{"Exp", Exp, math.Exp, 1, 1.3e-38},
		{"Tanh", Tanh, math.Tanh, 1.5, 0},
		{"Erf", Erf, math.Erf, 1.5, 0},
		{"Log", Log, math.Log, 0.5001, 0},
	} {
		worst, at := 0.0, float32(0)
		step := uint32(1511)
		for bits := uint32(0); bits < 0x7f800000; bits += step {
			for _, x := range [2]float32{math.Float32frombits(bits), math.Float32frombits(bits | 1<<31)} {
				got, want := float64(c.f(x)), c.want(float64(x))
				if math.IsNaN(want) || math.Abs(want) > math.MaxFloat32 || math.Abs(want) < float64(c.low) {
					if math.Abs(want) < float64(c.low) && got != 0 && math.Abs(got-want) > 1e-38 || math.IsNaN(want) && !math.IsNaN(got) ||
						want > 3.5e38 && got != math.Inf(1) || want < -3.5e38 && got != math.Inf(-1) {
						t.Fatalf("%s(%g) is %g, want %g", c.name, x, got, want)
					}
					continue
				}
				if e := math.Abs(got-want) / ulp32(want); e > worst || e != e {
					worst, at = e, x
				}
			}
		}
		t.Logf("%s: %.3f ulp at %g", c.name, worst, at)
		if !(worst <= c.ulp) {
			t.Errorf("%s: error of %.3f ulp at %g", c.name, worst, at)
		}
	}
}

// ulp32 is the distance between float32 around x.
func ulp32(x float64) float64 {
	_, e := math.Frexp(x)
	return math.Ldexp(1, max(e-24, -149))
}

func TestFunctionsAtTheirEnds(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		name      string
		got, want float32
	}{
		{"Exp(-Inf)", Exp(-infinity), 0}, {"Exp(+Inf)", Exp(infinity), infinity}, {"Exp(NaN)", Exp(nan), nan}, {"Exp(0)", Exp(0), 1},
		{"Exp(-0)", Exp(negativeZero), 1}, {"Exp(-87.26)", Exp(-87.26), 0}, {"Exp(88.73)", Exp(88.73), infinity},
		{"Tanh(Inf)", Tanh(infinity), 1}, {"Tanh(-Inf)", Tanh(-infinity), -1}, {"Tanh(NaN)", Tanh(nan), nan},
		{"Erf(Inf)", Erf(infinity), 1}, {"Erf(-9)", Erf(-9), -1}, {"Erf(NaN)", Erf(nan), nan},
		{"Log(0)", Log(0), -infinity}, {"Log(1)", Log(1), 0}, {"Log(-1)", Log(-1), nan}, {"Log(Inf)", Log(infinity), infinity},
	} {
		checkBits(t, c.name, []float32{c.got}, []float32{c.want})
	}
	// The largest argument of Exp that is not infinite uses the largest exponent there is.
	if got := Exp(expHigh); !(got < infinity) || got < 3.4e38 {
		t.Errorf("Exp(%g) is %g", float32(expHigh), got)
	}
}

func TestFloat64Functions(t *testing.T) {
	r := newRandom(4)
	for range 200000 {
		x := (r.Float64()*2 - 1) * math.Exp(r.Float64()*20.7)
		sin, cos := SinCos(x)
		// Reduce exactly, so that the comparison is not with another's reduction.
		wantSin, wantCos := exactSinCos(x)
		if math.Abs(sin-wantSin) > 0x1p-52 || math.Abs(cos-wantCos) > 0x1p-52 {
			t.Fatalf("SinCos(%g) is %g, %g, want %g, %g", x, sin, cos, wantSin, wantCos)
		}
		base, exponent := math.Exp(r.NormFloat64()*6), r.NormFloat64()*3
		got, want := Pow(base, exponent), math.Pow(base, exponent)
		if math.Abs(got-want) > want*(2+math.Abs(exponent*math.Log(base)))*0x1p-52 {
			t.Fatalf("Pow(%g, %g) is %g, want %g", base, exponent, got, want)
		}
		y := math.Exp(min(r.NormFloat64()*200, 700)) + 0x1p-1022 // package math is wrong for subnormal numbers on amd64
		if got, want := log64(y), math.Log(y); math.Abs(got-want) > 0x1p-52*math.Abs(want)+0x1p-53 {
			t.Fatalf("log64(%g) is %g, want %g", y, got, want)
		}
		z := r.NormFloat64() * 200
		if got, want := exp64(z), math.Exp(z); math.Abs(got-want) > 0x1p-51*want && want > 0x1p-1000 {
			t.Fatalf("exp64(%g) is %g, want %g", z, got, want)
		}
	}
	for _, c := range [][3]float64{{0, 1, 0}, {5, 0, 1}, {1, 99, 1}, {4, 0.5, 2}, {10000, -1, 1e-4}} {
		if got := Pow(c[0], c[1]); math.Abs(got-c[2]) > 1e-15*c[2] {
			t.Errorf("Pow(%g, %g) is %g, want %g", c[0], c[1], got, c[2])
		}
	}
	if s, c := SinCos(math.Inf(1)); s == s || c == c {
		t.Error("SinCos of infinity is a number")
	}
	if got, want := log64(0x1p-1074), -1074*math.Ln2; math.Abs(got-want) > 1e-12 {
		t.Errorf("log64 of the smallest number is %g, want %g", got, want)
	}
}

// exactSinCos reduces x with 200 bits of pi before it calls package math.
func exactSinCos(x float64) (sin, cos float64) {
	halfPi, _, _ := big.ParseFloat("1.57079632679489661923132169163975144209858469968755291048747229615390820314310449931401741267105853399107", 10, 300, big.ToNearestEven)
	n := math.RoundToEven(x / (math.Pi / 2))
	var rest big.Float
	rest.SetPrec(300).Mul(halfPi, big.NewFloat(n))
	rest.Sub(new(big.Float).SetPrec(300).SetFloat64(x), &rest)
	r, _ := rest.Float64()
	s, c := math.Sincos(r)
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
