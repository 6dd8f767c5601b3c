package kernel

import "math"

// Softmax replaces x by exp(x - max x) over their sum. Values below max - 87 become 0.
func (s *Set) Softmax(x []float32) {
	_, sum := s.expSum(x)
	s.Scale(x, 1/sum)
}

// LogSumExp is ln(sum of exp(x)); it destroys x. x[i] - LogSumExp(x) are log probabilities.
func (s *Set) LogSumExp(x []float32) float32 {
	largest, sum := s.expSum(x)
	return largest + Log(sum)
}

// expSum replaces x by exp(x - max x).
func (s *Set) expSum(x []float32) (largest, sum float32) {
	body := len(x) &^ (Lanes - 1)
	largest = s.Max(x)
	var acc lanes
	s.expAdd(&acc, x[:body], largest)
	expAddReference(&acc, x[body:], largest)
	return largest, treeSum(&acc)
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
