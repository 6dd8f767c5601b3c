package kernel

import "math"

// Softmax replaces x by exp(x - max x) over their sum. Values below max - 87 become 0.
func (s *Set) Softmax(x []float32) {
	s.Scale(x, 1/s.ExpSum(x, x, s.Max(x), 1))
}

// ExpSum computes dst = exp((x - shift) * scale), where no argument is positive, and gives their sum. dst may be x.
func (s *Set) ExpSum(dst, x []float32, shift, scale float32) float32 {
	checkLengths("ExpSum", len(dst), len(x))
	body := len(x) &^ (Lanes - 1)
	var acc lanes
	s.expAdd(&acc, dst[:body], x[:body], shift, scale)
	expAddReference(&acc, dst[body:], x[body:], shift, scale)
	return treeSum(&acc)
}

// Max is the largest value; NaN is skipped, and nothing gives -Inf.
func (s *Set) Max(x []float32) float32 {
	var acc lanes
	for i := range acc {
		acc[i] = float32(math.Inf(-1))
	}
	body := len(x) &^ (Lanes - 1)
	s.max(&acc, x[:body])
	maxReference(&acc, x[body:])
	return treeMax(&acc)
}

// ArgMax is the first index of the largest value; 0 if all are NaN.
func (s *Set) ArgMax(x []float32) int {
	largest := s.Max(x)
	for i := s.find(x[:len(x)&^(Lanes-1)], largest); i < len(x); i++ {
		if x[i] == largest {
			return i
		}
	}
	return 0
}

// Finite says whether no value is an infinity or a NaN.
func (s *Set) Finite(x []float32) bool {
	body := len(x) &^ (Lanes - 1)
	return max(s.largestBits(x[:body]), largestBitsReference(x[body:])) < 0x7f800000
}

// AtLeast gives the indices of the values that are at least least, in order, in the memory of indices, which is as long
// as x.
func (s *Set) AtLeast(indices []int32, x []float32, least float32) []int32 {
	checkLengths("AtLeast", len(indices), len(x))
	body := len(x) &^ (Lanes - 1)
	n := s.above(indices[:body], x[:body], least)
	for i, v := range x[body:] {
		if v >= least {
			indices[n] = int32(body + i)
			n++
		}
	}
	return indices[:n]
}
