package cluster

import (
	"bytes"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

func TestOthersAreRefused(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	a := start(t, Config{Self: plan.Member{Name: "a"}, Label: "here", SecretKey: key})
	stranger := start(t, Config{Self: plan.Member{Name: "stranger"}, Label: "there", SecretKey: key, Join: []string{a.Address()}})
	open := start(t, Config{Self: plan.Member{Name: "open"}, Label: "here", Join: []string{a.Address()}})
	thief := start(t, Config{Self: plan.Member{Name: "thief"}, Label: "here", SecretKey: bytes.Repeat([]byte{8}, 32), Join: []string{a.Address()}})
	for _, p := range []*peer{stranger, open, thief} {
		p.awaitLog("cannot join the cluster yet")
	}
	b := start(t, Config{Self: plan.Member{Name: "b"}, Label: "here", SecretKey: key, Join: []string{a.Address()}})
	b.await("a", has("a", "b"))
	a.await("b", has("a", "b"))
	for _, p := range []*peer{stranger, open, thief} {
		if !has(p.name)(p.Roster()) {
			t.Errorf("%s sees %v", p.name, names(p.Roster()))
		}
	}
}

// The first member of a name stays, the second is told; when the first has gone, the second takes its place.
func TestTwoOfOneName(t *testing.T) {
	a := start(t, Config{Self: plan.Member{Name: "a"}})
	first := start(t, Config{Self: plan.Member{Name: "twin", PID: 1}, Join: []string{a.Address()}})
	a.await("the first", has("a", "twin"))
	second := start(t, Config{Self: plan.Member{Name: "twin", PID: 2}, Join: []string{a.Address()}})
	a.awaitLog("two members have one name")
	second.awaitLog("two members have one name")
	if m, _ := a.Roster().Find("twin"); m.PID != 1 || m.Address != first.Address() {
		t.Errorf("the second took the place of the first: %+v", m)
	}
	first.leave()
	a.await("the second", func(r plan.Roster) bool {
		m, _ := r.Find("twin")
		return m.PID == 2 && m.Address == second.Address()
	})
}

// Whatever strangers send to the port, the cluster goes on and believes none of it.
func TestGarbageDoesNoHarm(t *testing.T) {
	a := start(t, Config{Self: plan.Member{Name: "a"}})
	b := start(t, Config{Self: plan.Member{Name: "b"}, Join: []string{a.Address()}})
	a.await("b", has("a", "b"))
	random := rand.New(rand.NewPCG(3, 4))
	junk := func() []byte {
		b := make([]byte, 1+random.IntN(600))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		switch random.IntN(3) {
		case 0:
			b[0] = byte(random.IntN(21))
		case 1: // under the right label
			b = append([]byte("\xf4\x05daisy"), b...)
			b[7] = byte(random.IntN(14))
		}
		return b
	}
	udp, err := net.Dial("udp", a.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for range 2000 {
		udp.Write(junk())
	}
	for range 200 {
		c, err := net.Dial("tcp", a.Address())
		if err != nil {
			t.Fatal(err)
		}
		c.Write(junk())
		c.Close()
	}
	for n := range uint64(3) {
		if err := b.SetPlan(n + 1); err != nil {
			t.Fatal(err)
		}
		a.await("the plan", func(r plan.Roster) bool { m, _ := r.Find("b"); return m.Plan == n+1 })
	}
	if !has("a", "b")(a.Roster()) {
		t.Errorf("a sees %v", names(a.Roster()))
	}
}

// impostor speaks memberlist, and says of itself what none of ours could.
type impostor struct{ meta []byte }

func (i impostor) NodeMeta(int) []byte             { return i.meta }
func (impostor) NotifyMsg([]byte)                  {}
func (impostor) GetBroadcasts(int, int) [][]byte   { return nil }
func (impostor) LocalState(bool) []byte            { return nil }
func (impostor) MergeRemoteState(_ []byte, _ bool) {}

func TestImpostorsAreRefused(t *testing.T) {
	a := start(t, Config{Self: plan.Member{Name: "a"}})
	good := encodeMeta(plan.Member{})
	newer := slices.Clone(good)
	newer[0]++
	for _, test := range []struct {
		name string
		meta []byte
		why  string
	}{
		{"nothing", nil, "metadata is cut off"},
		{"newer", newer, "run the same version everywhere"},
		{"garbage", bytes.Repeat([]byte{0xff}, 512), "more than 256"},
		{strings.Repeat("long", 50), good, "must have 1 to 64 printable bytes"},
		{"line\nbreak", good, `member="line\nbreak"`},
	} {
		conf := memberlist.DefaultLocalConfig()
		conf.Name, conf.Label, conf.BindAddr, conf.BindPort = test.name, "daisy", "127.0.0.1", 0
		conf.Delegate = impostor{test.meta}
		conf.LogOutput = &logged{}
		list, err := memberlist.Create(conf)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := list.Join([]string{a.Address()}); err != nil {
			t.Fatal(err)
		}
		a.awaitLog(test.why)
		if err := list.Shutdown(); err != nil {
			t.Fatal(err)
		}
	}
	b := start(t, Config{Self: plan.Member{Name: "b"}, Join: []string{a.Address()}})
	a.await("b alone", has("a", "b"))
	b.await("a alone", has("a", "b"))
}
