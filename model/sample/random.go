package sample

import (
	"math/bits"

	"github.com/daisy-llm/daisy/model/token"
)

// philox is Philox4x32-10: ten rounds that mix a counter with a key into four words, each key and counter giving words
// that look independent of all others. Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as
// 1, 2, 3", SC 2011.
func philox(counter [4]uint32, key [2]uint32) [4]uint32 {
	const (
		multiplier0, multiplier1 = 0xD2511F53, 0xCD9E8D57
		weyl0, weyl1             = 0x9E3779B9, 0xBB67AE85
	)
	for range 10 {
		high0, low0 := bits.Mul32(multiplier0, counter[0])
		high1, low1 := bits.Mul32(multiplier1, counter[2])
		counter = [4]uint32{high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0}
		key[0] += weyl0
		key[1] += weyl1
	}
	return counter
}

// uniform is the random number of one choice, in [0, 1), a multiple of 2^-53.
func uniform(seed uint64, choice uint32, position token.Position) float64 {
	words := philox([4]uint32{uint32(position), choice, 0, 0}, [2]uint32{uint32(seed), uint32(seed >> 32)})
	return float64(uint64(words[0])<<21|uint64(words[1])>>11) * 0x1p-53
}
