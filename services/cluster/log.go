package cluster

import (
	"bytes"
	"log"
	"log/slog"
)

// libraryLog is what memberlist logs to. It reports each stray datagram as an error; what matters, this package says
// itself, so all of it is for debugging.
func (c *Cluster) libraryLog() *log.Logger {
	return log.New(lines{c.log}, "", 0)
}

type lines struct{ log *slog.Logger }

func (l lines) Write(b []byte) (int, error) {
	l.log.Debug("memberlist", "says", string(bytes.TrimSpace(b)))
	return len(b), nil
}
