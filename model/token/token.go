// Package token names what a sequence is made of. It is a leaf: everything above may use its words.
package token

// ID is a token's index in the model's vocabulary.
type ID int32

// Position is a token's index in its sequence, from 0.
type Position int32
