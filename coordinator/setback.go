package coordinator

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// setback is what is known of a way that broke though both its ends live: a link from one shard to another, or a whole chain
// where nobody could say which of its links it was. Shards may be out of each other's reach while the coordinator reaches
// both. The way is tried again, each time later; after some times in a row plans are made around a link, for longer each time.
type setback struct {
	times int
	until time.Time // it is not taken again before
	shun  time.Time // no plan needs it before
}

const (
	breakTime    = 20 * time.Millisecond // the links are about to tell what happened
	maxBreakTime = 2 * time.Second
	soonBroken   = 5 * time.Second // what worked for longer begins anew
	patience     = 3               // times in a row that a way may break until plans are made around it
	shunTime     = 30 * time.Second
	maxShunTime  = 10 * time.Minute
)

// setback notes that a way broke, for which a pipeline had worked for some time.
func (o *operator) setback(way string, worked time.Duration) {
	s := o.setbacks[way]
	if s == nil {
		s = &setback{}
		o.setbacks[way] = s
	}
	now := time.Now()
	if worked >= soonBroken && now.After(s.shun) {
		s.times = 0
	}
	s.until = now.Add(min(breakTime<<min(s.times, 16), maxBreakTime))
	if s.times++; s.times >= patience {
		s.shun = now.Add(min(shunTime<<min(s.times-patience, 16), maxShunTime))
	}
}

// barred says until when a way is not taken; zero: it may be.
func (o *operator) barred(way string) time.Time {
	if s := o.setbacks[way]; s != nil && time.Now().Before(s.until) {
		return s.until
	}
	return time.Time{}
}

// shunned says whether plans are made around a way.
func (o *operator) shunned(way string) bool {
	s := o.setbacks[way]
	return s != nil && time.Now().Before(s.shun)
}

// linkOf names a link, from one shard to another; chainOf a chain, of which any link may be meant.
func linkOf(from, to string) string  { return from + separator + to }
func chainOf(shards []string) string { return separator + strings.Join(shards, separator) }

const separator = "\x00" // in no name

// forgive forgets the setbacks of a shard that is another process now.
func (o *operator) forgive(shard string) {
	maps.DeleteFunc(o.setbacks, func(way string, _ *setback) bool { return slices.Contains(strings.Split(way, separator), shard) })
}
