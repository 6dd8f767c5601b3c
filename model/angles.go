package model

import (
	"fmt"
	"math"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/token"
)

// angles is how far each pair of a head turns with every position. There are two kinds of layers at most: those that
// slide may have a base of their own.
type angles struct {
	full, sliding frequencies
	same          bool // sliding is full
}

// frequencies are one kind of layers' angles.
type frequencies struct {
	perPosition []float64 // (pairs) radians
	magnitude   float64   // of sine and cosine
}

func newAngles(f *gguf.File, cfg *Config) (*angles, error) {
	r := cfg.Rope
	var factors []float32
	if r.Factors {
		t, err := slot{name: ropeFactors, cols: r.Dims / 2}.find(f)
		if err != nil {
			return nil, err
		}
		factors = make([]float32, t.Cols())
		floats(factors, t)
		for i, v := range factors {
			if !(v > 1e-6 && v < 1e6) {
				return nil, fmt.Errorf("the tensor %s holds %v at %d: a factor between 1e-6 and 1e6 is expected", ropeFactors, v, i)
			}
		}
	}
	a := &angles{full: r.frequencies(r.Base, factors, r.Scaling)}
	a.sliding = a.full
	unscaled := r.Scaling.FullOnly && r.Scaling.Kind != NoScaling
	if a.same = cfg.Window == 0 || r.SlidingBase == r.Base && !unscaled; !a.same {
		scaling := r.Scaling
		if unscaled {
			scaling = RopeScaling{Factor: 1, Magnitude: 1}
		}
		a.sliding = r.frequencies(r.SlidingBase, factors, scaling)
	}
	return a, nil
}

// frequencies computes the angles a position: base^(-2i/dims), divided by the factors and scaled.
func (r *Rope) frequencies(base float64, factors []float32, scaling RopeScaling) frequencies {
	f := frequencies{perPosition: make([]float64, r.Dims/2), magnitude: scaling.Magnitude}
	for i := range f.perPosition {
		angle := 1 / kernel.Pow(base, float64(2*i)/float64(r.Dims))
		if factors != nil {
			angle /= float64(factors[i])
		}
		switch scaling.Kind {
		case LinearScaling:
			angle /= scaling.Factor
		case YarnScaling:
			low, high := scaling.ramp(base, r.Dims)
			kept := 1 - min(max((float64(i)-low)/max(high-low, 0.001), 0), 1)
			angle = float64(angle/scaling.Factor*(1-kept)) + float64(angle*kept)
		}
		f.perPosition[i] = angle
	}
	return f
}

// ramp gives the pairs between which YaRN goes over from keeping frequencies to dividing them: pair i makes
// context/(2 pi base^(2i/dims)) turns within the original context; the ramp goes from the last pair that makes BetaFast
// turns to the first that makes BetaSlow.
func (s *RopeScaling) ramp(base float64, dims int) (low, high float64) {
	turns := func(pair int) float64 {
		return float64(s.OriginalContext) / (2 * math.Pi * kernel.Pow(base, float64(2*pair)/float64(dims)))
	}
	first, last := 0, 0
	for first < dims-1 && turns(first+1) >= s.BetaFast {
		first++
	}
	for last < dims-1 && turns(last) > s.BetaSlow {
		last++
	}
	return float64(first), float64(last)
}

// at writes the cosines and sines of a position, (pairs) each.
func (f *frequencies) at(cos, sin []float32, position token.Position) {
	for i, angle := range f.perPosition {
		s, c := kernel.SinCos(float64(position) * angle)
		cos[i], sin[i] = float32(c*f.magnitude), float32(s*f.magnitude)
	}
}
