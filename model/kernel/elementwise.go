package kernel

// Element by element. Assembly takes whole vectors of 16, the reference what remains: the bits are the same.

// Add computes dst += x.
func (s *Set) Add(dst, x []float32) {
	checkLengths("Add", len(dst), len(x))
	body := len(x) &^ (Lanes - 1)
	s.add(dst[:body], x[:body])
	addReference(dst[body:], x[body:])
}

// Mul computes dst *= x.
func (s *Set) Mul(dst, x []float32) {
	checkLengths("Mul", len(dst), len(x))
	body := len(x) &^ (Lanes - 1)
	s.mul(dst[:body], x[:body])
	mulReference(dst[body:], x[body:])
}

// Scale computes x *= factor.
func (s *Set) Scale(x []float32, factor float32) {
	body := len(x) &^ (Lanes - 1)
	s.scale(x[:body], factor)
	scaleReference(x[body:], factor)
}

// AddScaled computes dst += factor * x, with one rounding.
func (s *Set) AddScaled(dst, x []float32, factor float32) {
	checkLengths("AddScaled", len(dst), len(x))
	body := len(x) &^ (Lanes - 1)
	s.addScaled(dst[:body], x[:body], factor)
	addScaledReference(dst[body:], x[body:], factor)
}

// SwiGLU computes dst = gate * sigmoid(gate) * up (Shazeer, 2020). dst may be gate or up.
func (s *Set) SwiGLU(dst, gate, up []float32) {
	checkLengths("SwiGLU", len(dst), len(gate), len(up))
	body := len(dst) &^ (Lanes - 1)
	s.swiGLU(dst[:body], gate[:body], up[:body])
	swiGLUReference(dst[body:], gate[body:], up[body:])
}

// GELU computes dst = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) (Hendrycks and Gimpel, 2016). dst may be x.
func (s *Set) GELU(dst, x []float32) {
	checkLengths("GELU", len(dst), len(x))
	body := len(dst) &^ (Lanes - 1)
	s.gelu(dst[:body], x[:body])
	geluReference(dst[body:], x[body:])
}

// GELUErf computes dst = x/2 (1 + erf(x / sqrt 2)), which the tanh form approximates. dst may be x.
func (s *Set) GELUErf(dst, x []float32) {
	checkLengths("GELUErf", len(dst), len(x))
	body := len(dst) &^ (Lanes - 1)
	s.geluErf(dst[:body], x[:body])
	geluErfReference(dst[body:], x[body:])
}

// SoftCap computes x = limit * tanh(x / limit).
func (s *Set) SoftCap(x []float32, limit float32) {
	body := len(x) &^ (Lanes - 1)
	s.softCap(x[:body], limit)
	softCapReference(x[body:], limit)
}

func addReference(dst, x []float32) {
	for i, v := range x {
		dst[i] += v
	}
}

func mulReference(dst, x []float32) {
	for i, v := range x {
		dst[i] *= v
	}
}

func scaleReference(x []float32, factor float32) {
	for i := range x {
		x[i] *= factor
	}
}

func addScaledReference(dst, x []float32, factor float32) {
	for i, v := range x {
		dst[i] = FMA32(v, factor, dst[i])
	}
}

func swiGLUReference(dst, gate, up []float32) {
	for i, g := range gate {
		dst[i] = g / (1 + Exp(-g)) * up[i]
	}
}

func geluReference(dst, x []float32) {
	const root2OverPi = 0.797884583
	for i, v := range x {
		cubic := float32(float32(v*v) * 0.044715)
		t := Tanh(float32(FMA32(cubic, v, v) * root2OverPi))
		half := float32(v * 0.5)
		dst[i] = FMA32(half, t, half)
	}
}

func geluErfReference(dst, x []float32) {
	const rootHalf = 0.707106769
	for i, v := range x {
		half := float32(v * 0.5)
		dst[i] = FMA32(half, Erf(float32(v*rootHalf)), half)
	}
}

func softCapReference(x []float32, limit float32) {
	for i, v := range x {
		x[i] = limit * Tanh(v/limit)
	}
}
