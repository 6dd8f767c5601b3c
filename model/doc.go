// Package model is what a transformer is: its configuration, its blocks of layers, and one forward pass per family.
//
// A shard reads a [Config] from a GGUF file, loads the [Block] it was planned to hold, and calls Embed, Forward and Head
// on it; a planner asks for [Sizes] without loading anything. The package has no sockets, and no goroutine outlives a
// call, except the workers of a Block's team, which Close ends.
//
// The invariant is that of the numerics contract: what Forward and Head compute for a position is a function of the
// model file, the cache type and the tokens up to that position. It does not depend on the block's cut, on what else is
// in the batch, on chunks, on threads, or on the kernel Set.
//
// It refuses, by name: architectures and kinds of RoPE scaling it does not know, mixtures of experts, tensor types it
// has no kernel for, tensors that are missing, misshapen or not part of the architecture, and numbers out of bounds.
package model
