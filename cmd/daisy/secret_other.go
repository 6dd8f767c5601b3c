//go:build !linux && !darwin

package main

const argumentsAreOriginal = false
