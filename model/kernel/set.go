package kernel

import (
	"fmt"
	"strings"
)

// Set is one implementation of the kernels: the plain Go reference, or assembly for an instruction set. All give the
// same bits. A Set has no state: any number of goroutines may use it.
type Set struct {
	Name  string // reference, avx2, avxvnni, avx512, amx
	isa   isa
	width int  // tokens in a panel, at most maxWidth
	ahead int  // bytes; see prefetchAhead
	tiles bool // of many tokens, with weights of integers: see multiplyTiles
}

// isa selects the assembly; an architecture defines its own values beside the reference.
type isa uint8

const isaReference isa = 0

const (
	maxWidth       = 12
	referenceWidth = 4
)

// Sets lists what this CPU can run, the reference first, the fastest last.
func Sets() []*Set {
	sets := append([]*Set{{Name: "reference", isa: isaReference, width: referenceWidth}}, architectureSets()...)
	for _, s := range sets {
		s.ahead = prefetchAhead()
	}
	return sets
}

// Best is the fastest Set this CPU can run.
func Best() *Set {
	sets := Sets()
	return sets[len(sets)-1]
}

// Lookup finds a Set by its name.
func Lookup(name string) (*Set, error) {
	var names []string
	for _, s := range Sets() {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return nil, fmt.Errorf("kernel set %q: this machine runs %s", name, strings.Join(names, ", "))
}
