package main

import (
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// console is stderr, shared by log lines, the shards' lines and progress, so that none of them tears another apart.
type console struct {
	file *os.File
	tty  bool

	mu   sync.Mutex
	over io.Writer // while a progress bar is drawn: what writes above it
}

func newConsole(f *os.File) *console {
	return &console{file: f, tty: isTerminal(f)}
}

// Write writes whole lines.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over != nil {
		return c.over.Write(p)
	}
	return c.file.Write(p)
}

// writeOver sends what is written to w, until restore is called.
func (c *console) writeOver(w io.Writer) (restore func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = w
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.over = nil
	}
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
