//go:build unix

package main

import "testing"

// And what the command started.
func TestCommandsEndWithWhatTheyStarted(t *testing.T) { endInTheMiddle(t, "parent") }
