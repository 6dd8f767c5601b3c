package main

// exp: x = Exp(x), using t1, t2 and masks 0, 1. With nonPositive, x is known to be at most 0, or NaN.
func (i *isa) exp(f *file, x, t1, t2 int, nonPositive bool) {
	i.compare(f, less, x, "expLow", 0)
	if !nonPositive {
		i.compare(f, greater, x, "expHigh", 1)
	}
	i.withConstant(f, "VMULPS", "log2E", i.v(x)+", "+i.v(t1))
	i.round(f, t1, t1)
	i.withConstant(f, "VFNMADD231PS", "ln2High", i.v(t1)+", "+i.v(x))
	i.withConstant(f, "VFNMADD231PS", "ln2Low", i.v(t1)+", "+i.v(x))
	f.op("VCVTPS2DQ %s, %s", i.v(t1), i.v(t1))
	f.op("VPSLLD $23, %s, %s", i.v(t1), i.v(t1))
	i.horner(f, x, t2, "exp0", "exp1", "exp2", "exp3", "exp4", "one", "one")
	f.op("VPADDD %s, %s, %s", i.v(t1), i.v(t2), i.v(x))
	i.zeroWhere(f, 0, x)
	if !nonPositive {
		i.constantWhere(f, 1, "infinity", x)
	}
}

// horner: dst = the polynomial of x, highest coefficient first.
func (i *isa) horner(f *file, x, dst int, coefficients ...string) {
	i.loadConstant(f, coefficients[0], dst)
	for _, c := range coefficients[1:] {
		i.withConstant(f, "VFMADD213PS", c, i.v(x)+", "+i.v(dst))
	}
}

// tanh: x = Tanh(x), using four more registers and masks 0, 1, 2.
func (i *isa) tanh(f *file, x, t1, t2, t3, t4 int) {
	i.withConstant(f, "VANDPS", "magnitude", i.v(x)+", "+i.v(t1))
	i.compare(f, less, t1, "tanhSplit", 2)
	// by way of exp, in t3
	f.op("VADDPS %s, %s, %s", i.v(t1), i.v(t1), i.v(t3))
	i.exp(f, t3, t1, t2, false)
	i.withConstant(f, "VADDPS", "one", i.v(t3)+", "+i.v(t3))
	i.loadConstant(f, "two", t1)
	f.op("VDIVPS %s, %s, %s", i.v(t3), i.v(t1), i.v(t3))
	i.loadConstant(f, "one", t1)
	f.op("VSUBPS %s, %s, %s", i.v(t3), i.v(t1), i.v(t3))
	i.copySign(f, x, t3, t1)
	// by the polynomial, in t1
	f.op("VMULPS %s, %s, %s", i.v(x), i.v(x), i.v(t4))
	i.horner(f, t4, t1, "tanh0", "tanh1", "tanh2", "tanh3", "tanh4")
	f.op("VMULPS %s, %s, %s", i.v(t1), i.v(t4), i.v(t1))
	f.op("VFMADD213PS %s, %s, %s", i.v(x), i.v(x), i.v(t1))
	i.selectWhere(f, 2, t1, t3)
	f.op("VMOVAPS %s, %s", i.v(t3), i.v(x))
}

// erf: x = Erf(x), using four more registers and masks 0, 1, 2.
func (i *isa) erf(f *file, x, t1, t2, t3, t4 int) {
	i.withConstant(f, "VANDPS", "magnitude", i.v(x)+", "+i.v(t1))
	i.compare(f, less, t1, "one", 2)
	// 1 - exp(polynomial), in t3; the magnitude is at most 4, and a NaN stays one
	i.loadConstant(f, "erfOne", t2)
	f.op("VMINPS %s, %s, %s", i.v(t1), i.v(t2), i.v(t1))
	i.horner(f, t1, t3, "erfLarge0", "erfLarge1", "erfLarge2", "erfLarge3", "erfLarge4", "erfLarge5", "erfLarge6")
	i.exp(f, t3, t1, t2, true)
	i.loadConstant(f, "one", t1)
	f.op("VSUBPS %s, %s, %s", i.v(t3), i.v(t1), i.v(t3))
	i.copySign(f, x, t3, t1)
	// x + x polynomial(x^2), in t1
	f.op("VMULPS %s, %s, %s", i.v(x), i.v(x), i.v(t4))
	i.horner(f, t4, t1, "erfSmall0", "erfSmall1", "erfSmall2", "erfSmall3", "erfSmall4", "erfSmall5", "erfSmall6")
	f.op("VFMADD213PS %s, %s, %s", i.v(x), i.v(x), i.v(t1))
	i.selectWhere(f, 2, t1, t3)
	f.op("VMOVAPS %s, %s", i.v(t3), i.v(x))
}

// copySign gives the positive x the sign of s, using t.
func (i *isa) copySign(f *file, s, x, t int) {
	i.withConstant(f, "VANDPS", "sign", i.v(s)+", "+i.v(t))
	f.op("VORPS %s, %s, %s", i.v(t), i.v(x), i.v(x))
}
