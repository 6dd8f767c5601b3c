//go:build linux

package wire

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Link is how packets go from one machine to another. Each direction has its own.
type Link struct {
	Delay     time.Duration `json:"delay"`     // one way
	Loss      float64       `json:"loss"`      // share of packets that vanish
	Duplicate float64       `json:"duplicate"` // share of packets that arrive twice
	Reorder   float64       `json:"reorder"`   // share of packets that are held back, so that later ones overtake them
	Cut       bool          `json:"cut"`       // nothing passes
}

// maxDelay bounds how much may be on its way.
const maxDelay = 10 * time.Second

// Validate says what no link can be.
func (l Link) Validate() error {
	if l.Delay < 0 || l.Delay > maxDelay {
		return fmt.Errorf("a link's delay is between 0 and %v, not %v", maxDelay, l.Delay)
	}
	for name, share := range map[string]float64{"loss": l.Loss, "duplicate": l.Duplicate, "reorder": l.Reorder} {
		if !(share >= 0 && share <= 1) {
			return fmt.Errorf("a link's %s is a share between 0 and 1, not %v", name, share)
		}
	}
	return nil
}

// heldBack is how much longer than its link's delay a packet takes that others are to overtake.
const heldBack = 5 * time.Millisecond

// line is a link in use.
type line struct {
	Link
	random *rand.Rand    // a generator of its own: what happens on other links does not change what happens here
	last   time.Duration // when the latest packet that keeps its place arrives
}

// take says when the copies of a packet arrive that is sent now: none, one or two.
func (l *line) take(now time.Duration) (due [2]time.Duration, copies int) {
	if l.Cut || l.strikes(l.Loss) {
		return due, 0
	}
	arrives := now + l.Delay
	if l.strikes(l.Reorder) {
		due[0] = max(arrives, l.last) + heldBack
	} else {
		l.last = max(arrives, l.last)
		due[0] = l.last
	}
	if l.strikes(l.Duplicate) {
		due[1] = due[0]
		return due, 2
	}
	return due, 1
}

func (l *line) strikes(share float64) bool { return share > 0 && l.random.Float64() < share }

// pace is the receiving end of a line with a rate: packets follow each other no faster than their bits do.
type pace struct {
	rate int64         // bits a second; 0 means any
	free time.Duration // when the line has passed all before
}

// backlog is how long a packet may wait for the line: what a switch has buffers for.
const backlog = 50 * time.Millisecond

// admit says when a packet that arrived at due has passed the line, or that there is no room to wait. It goes by when packets were due, not by
// when somebody got round to asking, so that a busy computer loses nothing.
func (p *pace) admit(due time.Duration, size int) (passed time.Duration, ok bool) {
	if p.rate == 0 {
		return due, true
	}
	start := max(p.free, due)
	if start-due > backlog {
		return 0, false
	}
	p.free = start + time.Duration(int64(size)*8*int64(time.Second)/p.rate)
	return p.free, true
}
