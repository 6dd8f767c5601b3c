//go:build linux

package wire

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

const ms = time.Millisecond

func newLine(link Link) *line { return &line{Link: link, random: rand.New(rand.NewPCG(1, 2))} }

func TestDelayKeepsOrder(t *testing.T) {
	l := newLine(Link{Delay: 20 * ms})
	var last time.Duration
	for i, step := range []struct{ now, delay, due time.Duration }{
		{0, 20 * ms, 20 * ms},
		{1 * ms, 20 * ms, 21 * ms},
		{2 * ms, 0, 21 * ms}, // not before what was sent earlier
		{30 * ms, 0, 30 * ms},
		{31 * ms, 5 * ms, 36 * ms},
	} {
		l.Delay = step.delay
		due, copies := l.take(step.now)
		if copies != 1 || due[0] != step.due || due[0] < last {
			t.Errorf("packet %d: %d copies, due %v, want %v", i, copies, due, step.due)
		}
		last = due[0]
	}
}

func TestFaultsStrikeTheirShare(t *testing.T) {
	const packets = 10_000
	for name, test := range map[string]struct {
		link                 Link
		lost, doubled, moved float64
	}{
		"none":      {Link{}, 0, 0, 0},
		"cut":       {Link{Cut: true}, 1, 0, 0},
		"loss":      {Link{Loss: 0.3}, 0.3, 0, 0},
		"all lost":  {Link{Loss: 1}, 1, 0, 0},
		"duplicate": {Link{Duplicate: 0.2}, 0, 0.2, 0},
		"reorder":   {Link{Reorder: 0.1}, 0, 0, 0.1},
	} {
		l := newLine(test.link)
		var lost, doubled, moved float64
		for i := range packets {
			now := time.Duration(i) * ms
			due, copies := l.take(now)
			switch copies {
			case 0:
				lost++
			case 2:
				doubled++
			}
			if copies > 0 && due[0] >= now+heldBack {
				moved++
			}
		}
		for what, pair := range map[string][2]float64{"lost": {lost, test.lost}, "doubled": {doubled, test.doubled}, "moved": {moved, test.moved}} {
			if got := pair[0] / packets; math.Abs(got-pair[1]) > 0.02 || (pair[1] == 0 || pair[1] == 1) && got != pair[1] {
				t.Errorf("%s: a share of %v is %s, want %v", name, got, what, pair[1])
			}
		}
	}
}

func TestPaceGoesByWhenPacketsWereDue(t *testing.T) {
	p := pace{rate: 8e6} // a byte takes a microsecond
	for i, step := range []struct {
		due    time.Duration
		size   int
		passed time.Duration
		ok     bool
	}{
		{0, 1000, 1 * ms, true},
		{0, 1000, 2 * ms, true}, // behind the first
		{10 * ms, 1000, 11 * ms, true},
		{10 * ms, 50_000, 61 * ms, true},
		{10 * ms, 1000, 0, false}, // would wait for 51 ms
		{11 * ms, 1000, 62 * ms, true},
		{200 * ms, 1000, 201 * ms, true},
	} {
		if passed, ok := p.admit(step.due, step.size); passed != step.passed || ok != step.ok {
			t.Errorf("packet %d: passed at %v, %v; want %v, %v", i, passed, ok, step.passed, step.ok)
		}
	}
}

func TestLinksThatCannotBe(t *testing.T) {
	for _, l := range []Link{{Delay: -1}, {Delay: time.Hour}, {Loss: 1.1}, {Loss: -0.1}, {Duplicate: math.NaN()}, {Reorder: 2}} {
		if l.Validate() == nil {
			t.Errorf("%+v passes", l)
		}
	}
	if err := (Link{Delay: time.Second, Loss: 1, Duplicate: 1, Reorder: 0, Cut: true}).Validate(); err != nil {
		t.Error(err)
	}
}
