//go:build linux || darwin

package main

// argumentsAreOriginal: os.Args lie where the system shows them from, in memory that may be written.
const argumentsAreOriginal = true
