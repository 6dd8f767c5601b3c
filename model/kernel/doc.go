// Package kernel holds the arithmetic of a transformer: products with quantised weights, attention over a paged cache,
// norms, activations, rotary embedding, and the team of workers that shares one forward pass.
//
// package model calls it, nobody else needs to. It knows no model, no file, no socket, reads no environment, and starts no
// goroutine except between Team.Start and Team.Close.
//
// # One answer
//
// Every result is a fixed sequence of IEEE operations, defined by the plain Go reference, and every [Set] gives the
// same bits as the reference (a NaN is a NaN; its sign and payload are free):
//
//   - A product is computed lane = row. Output row r of token t is one chain along k: for each block of 32, the exact
//     integer dot product with the int8 activations, then one FMA (two for a format with minima, or with two scales for
//     the 32: dot.go has each). It does not depend on the other tokens, on the group range, on the panel's width, nor on
//     how a pass is cut into chunks.
//   - F32, F16 and BF16 weights use float32 activations and one FMA a value, along k.
//   - Sums over a vector use 16 lanes, lane = index mod 16, and then the tree 8, 4, 2, 1.
//   - Attention walks tiles of 64 positions counted from position 0. Each tile gives its own (maximum, sum, output);
//     they are merged in order.
//   - exp, tanh, erf, log, sin, cos and pow are this package's own: package math gives other bits on other machines.
//
// # Use
//
//	set := kernel.Best()
//	m := kernel.NewMatrix(memory, kernel.Q4_1, rows, cols) // memory: kernel.PackedSize bytes
//	m.Pack(0, m.Groups(), q, k, v)                         // GGUF rows, stacked
//
//	a := set.Activations(scratch, m.Format, tokens, m.Cols) // a view of kernel.ActivationBytes bytes
//	set.Quantize(a, x, stride, 0, tokens)
//	set.MatMul(out, stride, m, 0, m.Groups(), a, 0, tokens)
//
// Work is split among the workers of a [Team] by groups of 16 rows, by tokens, or by heads; any split gives the same
// bits. Buffers are the caller's; no method of a Set allocates. A mismatch of shapes is our bug, and panics.
//
// # Assembly
//
// gen writes the files *_amd64.s and stubs_amd64.go; never edit them. The tag purego, and every other architecture, has the
// reference alone.
//
// The set amx is avx512, but for products of many tokens with weights of integers: AMX multiplies these by tiles, if the
// operating system permits.
//
// Values are little-endian in memory, as on every machine that Daisy builds for.
package kernel
