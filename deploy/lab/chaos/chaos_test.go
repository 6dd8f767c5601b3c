//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "as-chaos" { // the test binary is the command as well
		os.Args = append(os.Args[:1], os.Args[2:]...)
		main()
		return
	}
	os.Exit(m.Run())
}

func TestFaultsCanBeHadAgain(t *testing.T) {
	of, err := parseKinds("kill,stop,partition,drain,join", 2)
	if err != nil {
		t.Fatal(err)
	}
	list := func(seed uint64) (all []fault) {
		random := rand.New(rand.NewPCG(seed, 0))
		for range 500 {
			all = append(all, draw(random, of, 4, 2))
		}
		return all
	}
	first := list(7)
	if !reflect.DeepEqual(first, list(7)) || reflect.DeepEqual(first, list(8)) {
		t.Error("the faults do not follow from the seed")
	}
	seen := map[string]bool{}
	for _, f := range first {
		seen[fmt.Sprint(f.kind, f.shard)] = true
		if (f.kind == "join") != (f.shard >= 4) || f.shard >= 6 || f.before <= 0 || f.lasts <= 0 {
			t.Errorf("drew %v", f)
		}
	}
	if len(seen) != 4*4+2 {
		t.Errorf("drew only %v", seen)
	}
	for _, list := range []string{"", "kill,", "flood", "join"} {
		if _, err := parseKinds(list, 0); err == nil {
			t.Errorf("%q passes", list)
		}
	}
}

// What a server says, and what is made of it.
func TestEndsOfStreams(t *testing.T) {
	token := func(id int) string {
		return fmt.Sprintf("data: {\"choices\":[{\"token_ids\":[%d],\"finish_reason\":null}]}\n\n", id)
	}
	const finish = "data: {\"choices\":[{\"token_ids\":[],\"finish_reason\":\"length\"}]}\n\n"
	const stop = "data: {\"choices\":[{\"token_ids\":[],\"finish_reason\":\"stop\"}]}\n\n"
	const done = "data: [DONE]\n\n"
	const keepAlive = ": keep-alive\n\n"
	all := token(1) + token(2) + token(3)
	for name, test := range map[string]struct {
		body   string
		status int
		hangs  bool
		want   end
	}{
		"complete":              {body: token(1) + keepAlive + token(2) + token(3) + finish + done, want: complete},
		"another token":         {body: token(1) + token(9), want: different},
		"too many":              {body: all + token(4) + finish + done, want: different},
		"too few, and done":     {body: token(1) + finish + done, want: falseEnd},
		"stopped":               {body: all + stop + done, want: falseEnd},
		"finished, and cut off": {body: all + finish, want: falseEnd},
		"cut off":               {body: token(1), want: failed},
		"an error":              {body: token(1) + "data: {\"error\":{\"code\":\"shard_lost\",\"message\":\"gone\"}}\n\n", want: failed},
		"nonsense":              {body: "data: what?\n\n", want: failed},
		"refused":               {body: "busy", status: http.StatusServiceUnavailable, want: failed},
		"nothing more":          {body: token(1) + keepAlive, hangs: true, want: silent},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				if test.status != 0 {
					w.WriteHeader(test.status)
				}
				io.WriteString(w, test.body)
				if test.hangs {
					http.NewResponseController(w).Flush()
					<-r.Context().Done()
				}
			}))
			defer server.Close()
			patience := time.Minute
			if test.hangs {
				patience = 100 * time.Millisecond
			}
			_, how, why := ask(context.Background(), server.Client(), server.URL, request{prompt: []int{1}, tokens: 3}, []int{1, 2, 3}, newStream(), patience)
			if how != test.want {
				t.Errorf("%v (%s), want %v", how, why, test.want)
			}
			f := figures{ends: map[end]int{complete: 1}}
			f.ended(how, 1)
			if strict, mild := f.verdict(false) == nil, f.verdict(true) == nil; strict != (how == complete) || mild != (how == complete || how == failed) {
				t.Errorf("%v passes: %v, with errors forgiven: %v", how, strict, mild)
			}
		})
	}
	if (&figures{}).verdict(true) == nil {
		t.Error("a run in which nothing was completed passes")
	}
}

func TestSilences(t *testing.T) {
	at := func(seconds float64) time.Time {
		return time.Unix(1000, 0).Add(time.Duration(seconds * float64(time.Second)))
	}
	s := newStream()
	s.struck("stop", at(0)) // before any token: interrupts nothing
	s.token(at(1))
	s.token(at(5)) // slow, but not for a fault
	s.struck("kill", at(6))
	s.token(at(6.1)) // was on its way
	s.token(at(8.1))
	s.token(at(8.2))
	s.struck("stop", at(9))
	s.struck("partition", at(10)) // the stop's silence is one second at least
	s.token(at(13))
	s.over(complete)
	s.token(at(20))
	s.struck("kill", at(21))
	s.over(failed) // shows no recovery
	s.token(at(30))
	s.over(complete)
	want := map[string][]time.Duration{"kill": {2 * time.Second}, "stop": {time.Second}, "partition": {3 * time.Second}}
	if !reflect.DeepEqual(s.silences, want) {
		t.Errorf("got %v, want %v", s.silences, want)
	}
}

// A short run on a model so small that next to nothing is computed. No answer may differ, whatever else happens.
func TestShortRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this system has no root for us: a lab makes network namespaces and cgroups")
	}
	out, err := exec.Command("/proc/self/exe", "as-chaos", "--minutes", "0.1", "--seed", "3", "--shards", "3", "--streams", "4", "--prompt", "100", "--tokens", "100",
		"--model", "../../../model/testdata/golden/llama/model.gguf", "--forgive-errors").CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, want := range []string{"shard", "streams: complete ", "DIFFERENT 0", "FALSE END 0", "SILENT 0", "0 streams active"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the report lacks %q:\n%s", want, out)
		}
	}
	// A cluster that cannot start is not waited for.
	if out, err := exec.Command("/proc/self/exe", "as-chaos", "--model", "chaos_test.go").CombinedOutput(); err == nil || !strings.Contains(string(out), "coordinator has ended") {
		t.Errorf("%v:\n%s", err, out)
	}
	for _, args := range [][]string{{"--minutes", "0"}, {"--shards", "0"}, {"--faults", "rain"}, {"--faults", "join", "--spare", "0"}} {
		if err := exec.Command("/proc/self/exe", append([]string{"as-chaos"}, args...)...).Run(); err == nil {
			t.Errorf("%v passes", args)
		}
	}
}
