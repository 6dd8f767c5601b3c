package main

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

const (
	maxLineBytes = 8 << 10 // of a child's line; the rest goes on the next
	keptLines    = 20      // of a child, to show when it fails
)

// lineLog takes a child's output, writes it on in whole lines with a prefix, and keeps the last ones.
type lineLog struct {
	prefix string
	to     io.Writer // nil: only kept

	mu      sync.Mutex
	partial []byte
	last    []string
}

func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		line, rest, whole := bytes.Cut(p, []byte{'\n'})
		if room := maxLineBytes - len(l.partial); len(line) > room {
			line, rest, whole = p[:room], p[room:], true
		}
		l.partial, p = append(l.partial, line...), rest
		if whole {
			l.endLineLocked()
		}
	}
	return n, nil
}

// flush ends a last line that had no end.
func (l *lineLog) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.partial) > 0 {
		l.endLineLocked()
	}
}

func (l *lineLog) endLineLocked() {
	line := string(bytes.TrimSuffix(l.partial, []byte{'\r'}))
	l.partial = l.partial[:0]
	if len(l.last) == keptLines {
		l.last = append(l.last[:0], l.last[1:]...)
	}
	l.last = append(l.last, line)
	if l.to != nil {
		io.WriteString(l.to, l.prefix+line+"\n")
	}
}

// show writes the kept lines to w, if they were not written on already; a last line in which the child says itself why it
// ended is left to failure.
func (l *lineLog) show(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to != nil {
		return
	}
	lines := l.last
	if n := len(lines); n > 0 && strings.HasPrefix(lines[n-1], errorPrefix) {
		lines = lines[:n-1]
	}
	for _, line := range lines {
		io.WriteString(w, l.prefix+line+"\n")
	}
}

// lastLine is the last line that says something.
func (l *lineLog) lastLine() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.last) - 1; i >= 0; i-- {
		if l.last[i] != "" {
			return l.last[i]
		}
	}
	return ""
}
