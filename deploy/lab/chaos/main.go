//go:build linux

// Command chaos runs streams on a Daisy cluster in the lab while its machines are killed, stopped, cut off, drained and joined, and holds every
// stream against the undisturbed answer, token by token. It needs root.
//
//	go run ./deploy/lab/chaos --minutes 30 --seed 1
//
// It owns the faults, drawn from the seed so that a run can be had again, and the figures. It fails if a stream ends differently, as if it were
// complete, never, or with an error (--forgive-errors allows the last), or if afterwards something is left of what the streams took.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/daisy-llm/daisy/deploy/lab/cluster"
	"github.com/daisy-llm/daisy/deploy/lab/lab"
	"github.com/daisy-llm/daisy/deploy/lab/wire"
)

type flags struct {
	minutes                                float64
	seed                                   uint64
	shards, spare, streams, prompt, tokens int
	threads                                int
	faults, daisy, model                   string
	delay, patience                        time.Duration
	forgive, verbose                       bool
	coordinatorFlags, shardFlags           []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:           "chaos",
		Short:         "Streams on a cluster whose machines fail, held against the undisturbed answers",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	p := cmd.Flags()
	p.Float64Var(&f.minutes, "minutes", 1, "how long faults happen")
	p.Uint64Var(&f.seed, "seed", 1, "decides which faults happen")
	p.IntVar(&f.shards, "shards", 4, "machines with a shard")
	p.IntVar(&f.spare, "spare", 1, "machines more, which join and leave")
	p.IntVar(&f.streams, "streams", 8, "streams at once")
	p.IntVar(&f.prompt, "prompt", 200, "tokens of the longest prompt")
	p.IntVar(&f.tokens, "tokens", 200, "tokens of a stream")
	p.IntVar(&f.threads, "threads", 1, "threads of a shard")
	p.StringVar(&f.faults, "faults", "kill,stop,partition,drain,join", "which faults")
	p.StringVar(&f.daisy, "daisy", "", "the binary (default: build it from ./cmd/daisy)")
	p.StringVar(&f.model, "model", "smollm2", "a file, or whatever daisy pull understands")
	p.DurationVar(&f.delay, "delay", 0, "time that a packet takes from machine to machine")
	p.DurationVar(&f.patience, "patience", 2*time.Minute, "how long a stream may say nothing")
	p.BoolVar(&f.forgive, "forgive-errors", false, "streams may end with an error, if it says so")
	p.BoolVar(&f.verbose, "verbose", false, "show what the processes say")
	p.StringArrayVar(&f.coordinatorFlags, "coordinator-flag", nil, "one more argument for daisy coordinator; may be repeated")
	p.StringArrayVar(&f.shardFlags, "shard-flag", nil, "one more argument for daisy shard; may be repeated")
	return cmd
}

func (f *flags) run(ctx context.Context, out io.Writer) (err error) {
	if f.shards < 1 || f.spare < 0 || f.streams < 1 || f.prompt < 1 || f.tokens < 1 || !(f.minutes > 0 && f.minutes < 1e6) || f.patience <= 0 {
		return errors.New("--shards, --streams, --prompt, --tokens, --minutes and --patience are more than nothing, --spare no less")
	}
	of, err := parseKinds(f.faults, f.spare)
	if err != nil {
		return err
	}
	var machines []lab.MachineConfig
	for _, name := range cluster.Names(f.shards + f.spare) {
		machines = append(machines, lab.MachineConfig{Name: name})
	}
	l, err := lab.Up(lab.Config{Machines: machines, Seed: f.seed})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Down()) }()
	if err := l.Change(nil, nil, func(link *wire.Link) { link.Delay = f.delay }); err != nil {
		return err
	}
	said := io.Discard
	if f.verbose {
		said = out
	}
	binary, err := cluster.Binary(ctx, f.daisy, l.Machines[0].Disk, out)
	if err != nil {
		return err
	}
	model, err := cluster.Model(ctx, f.model, binary, out)
	if err != nil {
		return err
	}
	threads := make([]int, len(machines))
	for i := range threads {
		threads[i] = f.threads
	}
	c, err := cluster.New(l, cluster.Config{
		Binary: binary, Model: model, Shards: f.shards, Threads: threads, Out: &whole{out: said},
		CoordinatorFlags: append([]string{"--parallel", fmt.Sprint(f.streams)}, f.coordinatorFlags...), ShardFlags: f.shardFlags,
	})
	if err != nil {
		return err
	}
	if err := c.StartAll(ctx); err != nil {
		return err
	}
	if err := ready(ctx, c); err != nil {
		return err
	}
	client, err := c.Client()
	if err != nil {
		return err
	}
	r := &run{flags: f, lab: l, cluster: c, out: &whole{out: out}, client: client, url: c.URL(), figures: figures{ends: map[end]int{}, faults: map[string]int{}}}
	defer r.client.CloseIdleConnections()
	return r.all(ctx, of)
}

// ready waits until the cluster has a plan. What does not come back in that time does not come back.
func ready(ctx context.Context, c *cluster.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	return c.Ready(ctx)
}

// run is one run of chaos.
type run struct {
	*flags
	lab     *lab.Lab
	cluster *cluster.Cluster
	out     io.Writer
	client  *http.Client
	url     string
	figures figures
}

func (r *run) all(ctx context.Context, of []string) error {
	asked := requests(r.streams, r.prompt, r.tokens)
	fmt.Fprintf(r.out, "%d streams of %d tokens undisturbed\n", len(asked), r.tokens)
	undisturbed, err := r.calm(ctx, asked, make([][]int, len(asked)))
	if err != nil {
		return err
	}
	coordinator := r.cluster.Process(r.lab.Machines[0]).Cmd.Process.Pid
	before, err := holds(coordinator)
	if err != nil {
		return err
	}

	began := time.Now()
	fmt.Fprintf(r.out, "%v of faults, seed %d\n", time.Duration(r.minutes*float64(time.Minute)), r.seed)
	streams := make([]*stream, len(asked))
	chaos, end := context.WithCancel(ctx)
	group, chaos := errgroup.WithContext(chaos)
	for i := range asked {
		streams[i] = newStream()
		group.Go(func() error { return r.again(chaos, i, asked, undisturbed, streams[i]) })
	}
	group.Go(func() error {
		defer end()
		return r.suffer(chaos, of, began, streams)
	})
	err = group.Wait()
	end()
	silences := map[string][]time.Duration{}
	for _, s := range streams {
		for kind, some := range s.silences {
			silences[kind] = append(silences[kind], some...)
		}
	}
	r.figures.print(r.out, time.Since(began), silences)
	if err != nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}

	if err := ready(ctx, r.cluster); err != nil {
		return err
	}
	if _, err := r.calm(ctx, asked, undisturbed); err != nil {
		return fmt.Errorf("afterwards: %w", err)
	}
	return errors.Join(r.figures.verdict(r.forgive), r.left(ctx, coordinator, before))
}

// calm asks for everything at once, with nothing to disturb it.
func (r *run) calm(ctx context.Context, asked []request, want [][]int) ([][]int, error) {
	got := make([][]int, len(asked))
	group, ctx := errgroup.WithContext(ctx)
	for i := range asked {
		group.Go(func() error {
			ids, how, why := ask(ctx, r.client, r.url, asked[i], want[i], newStream(), r.patience)
			if how != complete {
				return fmt.Errorf("request %d with nothing to disturb it: %v %s", i, how, why)
			}
			got[i] = ids
			return nil
		})
	}
	return got, group.Wait()
}

// again makes one request after the other until the faults are over.
func (r *run) again(ctx context.Context, first int, asked []request, want [][]int, s *stream) error {
	for n := first; ctx.Err() == nil; n++ {
		i := n % len(asked)
		ids, how, why := ask(ctx, r.client, r.url, asked[i], want[i], s, r.patience)
		r.figures.ended(how, len(ids))
		if how != complete && how != given {
			fmt.Fprintf(r.out, "%s  request %d: %v %s\n", stamp(), i, how, why)
			select { // what is refused at once is not asked for a thousand times
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
	return nil
}

// suffer lets faults happen, one after the other.
func (r *run) suffer(ctx context.Context, of []string, began time.Time, streams []*stream) error {
	random := rand.New(rand.NewPCG(r.seed, 0))
	wait := func(d time.Duration) bool {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(d):
			return true
		}
	}
	for time.Since(began).Minutes() < r.minutes {
		f := draw(random, of, r.shards, r.spare)
		fmt.Fprintf(r.out, "%s %v\n", stamp(), f)
		if !wait(f.before) {
			return nil
		}
		for _, s := range streams {
			s.struck(f.kind, time.Now())
		}
		if err := f.strike(r.lab, r.cluster); err != nil {
			return fmt.Errorf("%v: %w", f, err)
		}
		r.figures.struck(f.kind)
		if !wait(f.lasts) {
			return nil
		}
		if err := f.mend(r.lab, r.cluster); err != nil {
			return fmt.Errorf("%v, make good: %w", f, err)
		}
	}
	return nil
}

// slack is how much more of something a process may hold than before: connections that were made anew, threads that were needed once.
const slack = 16

// left looks for what the streams have left behind.
func (r *run) left(ctx context.Context, coordinator int, before held) error {
	r.client.CloseIdleConnections()
	var after held
	var active int
	deadline := time.Now().Add(time.Minute)
	for {
		var err error
		if after, err = holds(coordinator); err != nil {
			return err
		}
		if active, err = r.active(ctx); err != nil {
			return err
		}
		if active == 0 && after.files <= before.files+slack {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("a minute after the last stream, %d are active, and the coordinator holds %d files (%d at first)", active, after.files, before.files)
		}
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Fprintf(r.out, "coordinator: %d files (%d at first), %d threads (%d at first), %d streams active\n", after.files, before.files, after.threads, before.threads, active)
	return nil
}

// active is how many streams the coordinator believes to have.
func (r *run) active(ctx context.Context) (int, error) {
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/cluster", nil)
	if err != nil {
		return 0, err
	}
	answer, err := r.client.Do(get)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	var status struct {
		Active  int `json:"active"`
		Waiting int `json:"waiting"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&status); err != nil {
		return 0, fmt.Errorf("read the coordinator's status: %w", err)
	}
	return status.Active + status.Waiting, nil
}

func stamp() string { return time.Now().Format("15:04:05.000") }

// whole lets several goroutines write whole lines.
type whole struct {
	mu  sync.Mutex
	out io.Writer
}

func (w *whole) Write(text []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(text)
}
