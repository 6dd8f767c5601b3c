//go:build linux

package cluster

import (
	"io"
	"strings"
	"sync"
)

// prefixed puts a name before each line, so that the lines of several programs can be told apart.
type prefixed struct {
	out    io.Writer
	prefix string

	mu   sync.Mutex
	rest []byte // of a line that has not ended
}

// maxLine is how much of a line is waited for.
const maxLine = 64 << 10

func (p *prefixed) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest = append(p.rest, text...)
	for {
		line, rest, ended := strings.Cut(string(p.rest), "\n")
		if !ended && len(p.rest) < maxLine {
			return len(text), nil
		}
		if _, err := io.WriteString(p.out, p.prefix+line+"\n"); err != nil {
			return 0, err
		}
		p.rest = []byte(rest)
	}
}
