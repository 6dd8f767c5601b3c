package kernel

import "math"

// lanes are the 16 partial results of a reduction: element i of a vector belongs to lane i mod 16.
type lanes = [Lanes]float32

// treeSum adds the lanes: 16, 8, 4, 2, 1.
func treeSum(a *lanes) float32 {
	for n := Lanes / 2; n > 0; n /= 2 {
		for i := range n {
			a[i] += a[i+n]
		}
	}
	return a[0]
}

// treeMax is the largest lane.
func treeMax(a *lanes) float32 {
	m := a[0]
	for _, v := range a[1:] {
		m = max32(v, m)
	}
	return m
}

func sumReference(acc *lanes, x []float32) {
	for i, v := range x {
		acc[i%Lanes] += v
	}
}

func sumSquaresReference(acc *lanes, x []float32) {
	for i, v := range x {
		acc[i%Lanes] = FMA32(v, v, acc[i%Lanes])
	}
}

// sumDeviationsReference adds the squares of x - mean.
func sumDeviationsReference(acc *lanes, x []float32, mean float32) {
	for i, v := range x {
		d := v - mean
		acc[i%Lanes] = FMA32(d, d, acc[i%Lanes])
	}
}

// maxReference skips NaN.
func maxReference(acc *lanes, x []float32) {
	for i, v := range x {
		acc[i%Lanes] = max32(v, acc[i%Lanes])
	}
}

// expAddReference computes dst = exp((x - shift) * scale) and adds it up. No argument is positive.
func expAddReference(acc *lanes, dst, x []float32, shift, scale float32) {
	for i, v := range x {
		dst[i] = Exp((v - shift) * scale)
		acc[i%Lanes] += dst[i]
	}
}

// largestBitsReference is the largest magnitude, as an integer: infinities and NaN are above all numbers.
func largestBitsReference(x []float32) uint32 {
	var bits uint32
	for _, v := range x {
		bits = max(bits, math.Float32bits(v)&^(1<<31))
	}
	return bits
}

// aboveReference writes the indices of the values that are at least least, and says how many.
func aboveReference(indices []int32, x []float32, least float32) int {
	n := 0
	for i, v := range x {
		if v >= least {
			indices[n] = int32(i)
			n++
		}
	}
	return n
}

// findReference is the start of the first sixteen values among which is value, or len(x).
func findReference(x []float32, value float32) int {
	for i, v := range x {
		if v == value {
			return i &^ (Lanes - 1)
		}
	}
	return len(x)
}
