// Package e2e holds the tests of Daisy as its users meet it: the real binary, real processes, a real pre-trained model.
//
// It has no code of its own. Its tests build cmd/daisy once, fetch the default model through the catalogue into the user's
// cache, and speak to what they start through the command line and the HTTP API alone. Each of them fails if a process
// that it started is left when it ends.
package e2e
