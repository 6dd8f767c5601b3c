package coordinator

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daisy-llm/daisy/coordinator/plan"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// TestFailover plays the scenarios in testdata/failover: shards without weights, in time of their own, under a coordinator as
// it is. Set DAISY_GOLDEN=write to write down anew what happens in each.
//
//	shards NAME...                 join; the first plan waits for them
//	generate NAME PROMPT TOKENS    starts a generation; its answer is compared with the undisturbed one
//	at NAME N COMMAND              does something once a generation has got so many tokens
//	when TEXT: COMMAND             does something once, when a line of the log contains a text
//	after DURATION                 lets time pass
//	in DURATION COMMAND            does something later
//	wait NAME                      until a generation has ended
//	delay DURATION                 a pass takes so long at each stage
//	again N                        so many positions, times layers, may be computed more than once; without it, none
//	kill, stop, cont, cut, forget SHARD; join SHARD; restart (the coordinator); cancel NAME
func TestFailover(t *testing.T) {
	files, err := filepath.Glob("testdata/failover/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	for _, file := range files {
		inTime(t, strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { playFile(t, file) })
	}
}

const goldenMark = "\n----\n"

func playFile(t *testing.T, file string) {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	script, want, _ := strings.Cut(string(raw), goldenMark)
	got := play(t, script)
	if os.Getenv("DAISY_GOLDEN") == "write" {
		if err := os.WriteFile(file, []byte(script+goldenMark+got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// scene is a scenario on its way.
type scene struct {
	*cluster
	t       *testing.T
	began   time.Time
	started map[string]*scripted
	life    int
	tasks   sync.WaitGroup

	positions int // that all answers need, and how many of layers may be computed again
	again     int

	mu      sync.Mutex
	log     []string          // with the time
	ends    []string          // of generations
	planned time.Time         // when there last was a new plan
	when    map[string]string // by text: commands still to be done
}

// scripted is a generation of a scenario.
type scripted struct {
	cancel context.CancelFunc
	ended  chan struct{}
	at     map[int]string // by tokens: commands
}

func play(t *testing.T, script string) string {
	w := newWorld(t)
	w.next = func(tokens []token.ID, state uint64) token.ID { // which depends on every row of every layer before
		return token.ID(digest(state, uint64(len(tokens)))%400) + 3
	}
	w.delay.Store(int64(5 * time.Millisecond))
	w.read = 20 * time.Millisecond
	s := &scene{t: t, began: time.Now(), started: map[string]*scripted{}, when: map[string]string{}}
	w.events = s.note
	s.cluster = s.coordinate(w, len(strings.Fields(script[:max(0, strings.IndexByte(script, '\n'))]))-1)
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			s.do(line)
		}
	}
	for _, g := range s.started {
		<-g.ended
	}
	s.cluster.stop()
	s.tasks.Wait()
	if n := s.open(); n != 0 {
		t.Errorf("%d sequences are still cached", n)
	}
	w.end()
	computed := 0
	for _, p := range w.everyProc() {
		computed += p.computed
	}
	if again := computed - s.positions*12; again > s.again {
		t.Errorf("%d positions of layers were computed again, at most %d are needed", again, s.again)
	}
	// What happens at one time has no order, and how long things take is not the scenario's to say.
	var log strings.Builder
	slices.Sort(s.log)
	for _, line := range s.log {
		_, text, _ := strings.Cut(line, "s ")
		log.WriteString(text + "\n")
	}
	slices.Sort(s.ends)
	return log.String() + strings.Join(s.ends, "\n") + "\n"
}

// coordinate starts a coordinator, in its next life.
func (s *scene) coordinate(w *world, shards int) *cluster {
	s.life++
	c := w.coordinator(fmt.Sprint("c", s.life), func(cfg *Config) {
		cfg.Shards = shards
		cfg.Shape.Context, cfg.Load.Context = 1024, 1024
		cfg.Shape.Parallel, cfg.Load.Parallel = 4, 4
		cfg.Model.Hidden = 1 // the credit is for so many positions
		cfg.Shape.Layers = slices.Repeat([]plan.LayerSize{{Weights: 1000, Cache: 1}}, 12)
	})
	s.tasks.Go(func() {
		plan := ""
		for {
			changed := c.Changed()
			st := c.Status()
			if st.State == StateReady && st.Plan != plan {
				plan = st.Plan
				var stages []string
				for _, shard := range st.Shards {
					if shard.Stage >= 0 {
						stages = append(stages, fmt.Sprintf("%s %d-%d", shard.Name, shard.First, shard.Last-1))
					}
				}
				s.mu.Lock()
				s.planned = time.Now()
				s.mu.Unlock()
				s.note("plan %s: %s", st.Plan, strings.Join(stages, ", "))
			}
			select {
			case <-changed:
			case <-c.over:
				return
			}
		}
	})
	return c
}

// note writes a line of what happens, and does what was to be done then.
func (s *scene) note(format string, args ...any) {
	s.mu.Lock()
	line := fmt.Sprintf(format, args...)
	s.log = append(s.log, fmt.Sprintf("%09.3fs %s", time.Since(s.began).Seconds(), line))
	command := ""
	for text, c := range s.when {
		if strings.Contains(line, text) {
			command = c
			delete(s.when, text)
		}
	}
	s.mu.Unlock()
	if command != "" {
		s.tasks.Go(func() { s.do(command) })
	}
}

func (s *scene) end(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends = append(s.ends, line)
}

func (s *scene) do(line string) {
	words := strings.Fields(line)
	switch words[0] {
	case "shards":
		s.join(words[1:]...)
		s.settled()
	case "generate":
		s.generate(words[1], s.number(words[2]), s.number(words[3]))
	case "at":
		s.mu.Lock()
		s.started[words[1]].at[s.number(words[2])] = strings.Join(words[3:], " ")
		s.mu.Unlock()
	case "when":
		text, command, _ := strings.Cut(strings.TrimPrefix(line, "when "), ": ")
		s.mu.Lock()
		s.when[text] = command
		s.mu.Unlock()
	case "after":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			s.t.Fatal(err)
		}
		time.Sleep(d)
		synctest.Wait()
	case "wait":
		<-s.started[words[1]].ended
	case "kill":
		s.note("%s is killed", words[1])
		s.kill(words[1])
	case "stop":
		s.note("%s is stopped", words[1])
		s.proc(words[1]).pause()
	case "cont":
		s.note("%s goes on", words[1])
		s.proc(words[1]).resume()
	case "cut":
		s.note("the link to %s is cut", words[1])
		s.link(words[1]).die <- fmt.Errorf("connection reset")
	case "forget":
		s.forget(words[1])
	case "join":
		s.join(words[1])
	case "in":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			s.t.Fatal(err)
		}
		s.tasks.Go(func() {
			time.Sleep(d)
			s.do(strings.Join(words[2:], " "))
		})
	case "delay":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			s.t.Fatal(err)
		}
		s.world.delay.Store(int64(d))
	case "again":
		s.again = s.number(words[1])
	case "cancel":
		s.started[words[1]].cancel()
	case "restart":
		s.note("the coordinator is restarted")
		s.cluster.stop()
		time.Sleep(time.Second)
		members := s.members
		s.cluster = s.coordinate(s.world, len(members))
		s.members = members
		s.rosters <- plan.NewRoster(members...)
		s.settled()
	default:
		s.t.Fatalf("what is %q?", line)
	}
}

func (s *scene) number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// generate starts a generation and checks its answer.
func (s *scene) generate(name string, prompt, tokens int) {
	ctx, cancel := context.WithCancel(s.t.Context())
	g := &scripted{cancel: cancel, ended: make(chan struct{}), at: map[int]string{}}
	s.started[name] = g
	r := Request{MaxTokens: tokens, IgnoreEOS: true}
	for i := range prompt {
		r.Prompt = append(r.Prompt, token.ID(3+(i*7+len(name)*13+int(name[0]))%400))
	}
	want := s.undisturbed(r)
	c := s.cluster
	s.tasks.Go(func() {
		defer close(g.ended)
		defer cancel()
		var got []token.ID
		last := time.Now()
		answer, err := c.Generate(ctx, r, func(d Delta) error {
			got = append(got, d.IDs...)
			s.mu.Lock()
			command := g.at[len(got)]
			waited := s.planned.After(last)
			s.mu.Unlock()
			if last = time.Now(); waited {
				s.note("%s goes on", name)
			}
			if command != "" {
				s.do(command)
			}
			return nil
		})
		switch {
		case err != nil:
			why, _, _ := strings.Cut(err.Error(), " (")
			s.end(fmt.Sprintf("%s ends after %d tokens: %s", name, len(got), why))
			if !slices.Equal(got, want[:len(got)]) {
				s.t.Errorf("%s: %v, undisturbed %v", name, got, want)
			}
		case !slices.Equal(got, want) || answer.GeneratedTokens != len(want):
			s.end(name + " ends with another answer")
			s.t.Errorf("%s: %v, undisturbed %v", name, got, want)
		default:
			s.end(fmt.Sprintf("%s has its %d tokens", name, len(got)))
		}
		s.mu.Lock()
		s.positions += prompt + len(got) - 1
		s.mu.Unlock()
	})
	synctest.Wait()
}

// undisturbed is the answer that comes when nothing happens: twelve layers in one place.
func (s *scene) undisturbed(r Request) []token.ID {
	p := newProc(s.world, "oracle", 1)
	load := pass.Load{First: true, Last: true}
	load.Layers.Last = 12
	q := &cached{layers: map[layerIndex][]uint64{}, logs: map[layerIndex][]uint64{}}
	tokens := slices.Clone(r.Prompt)
	from := 0
	for len(tokens) < len(r.Prompt)+r.MaxTokens {
		e := pass.Entry{First: token.Position(from), Count: len(tokens) - from, Tokens: tokens[from:]}
		f := &flight{Pass: &pass.Pass{Entries: []pass.Entry{e}}, rows: embed(&e)}
		for i := load.Layers.First; i < load.Layers.Last; i++ {
			p.layer(f, q, i)
		}
		from = len(tokens)
		tokens = append(tokens, s.next(tokens, f.rows[len(f.rows)-1]))
	}
	return tokens[len(r.Prompt):]
}
