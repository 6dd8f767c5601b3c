//go:build linux

// Package cluster runs Daisy in a lab: a coordinator in its first machine, a shard in each other.
//
// It owns what each machine runs and starts it, also again; the commands lab and chaos call it. Its invariant: a machine runs at most one
// program of the cluster. It knows Daisy from outside, by its flags and its HTTP API, and refuses to start what runs already. Machines trust each
// other by a join token, unless the cluster is to be open.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/daisy-llm/daisy/deploy/lab/lab"
)

// Coordinator is the name of the first machine.
const Coordinator = "coordinator"

// Everything listens on its machine's address.
const (
	coordinatorPort = "8080"
	shardPort       = "8081"
)

// Names are those of the machines that a cluster needs.
func Names(shards int) []string {
	names := []string{Coordinator}
	for i := range shards {
		names = append(names, fmt.Sprint("shard", i+1))
	}
	return names
}

// Config says what cluster runs.
type Config struct {
	Binary           string // daisy
	Model            string // a file
	Shards           int    // to wait for before the first plan is made; the other machines are spare
	Threads          []int  // of each machine's shard, the coordinator's first; 0 or none means Daisy's default
	Private          bool   // each shard's machine has a copy of the file
	Insecure         bool   // no encryption, no tokens
	CoordinatorFlags []string
	ShardFlags       []string
	Out              io.Writer // what the programs say, line by line, each with its machine's name
}

// Cluster is what runs in a lab.
type Cluster struct {
	lab *lab.Lab
	cfg Config

	mu       sync.Mutex
	programs map[string]*program // by machine
}

// program is what a machine runs, and runs again when it is started again.
type program struct {
	args    []string
	process *lab.Process // nil until it was started
}

// New says what each machine of a lab is to run, and starts nothing.
func New(l *lab.Lab, cfg Config) (*Cluster, error) {
	if cfg.Shards < 1 || cfg.Shards >= len(l.Machines) {
		return nil, fmt.Errorf("a cluster of %d shards in %d machines: it takes one more for the coordinator", cfg.Shards, len(l.Machines))
	}
	c := &Cluster{lab: l, cfg: cfg, programs: map[string]*program{}}
	args := []string{"coordinator", "--model", cfg.Model, "--listen", c.Address(), "--name", Coordinator, "--shards", strconv.Itoa(cfg.Shards)}
	c.programs[l.Machines[0].Name] = &program{args: slices.Concat(args, c.trust(l.Machines[0]), cfg.CoordinatorFlags)}
	for i, m := range l.Machines[1:] {
		file := cfg.Model
		if cfg.Private {
			var err error
			if file, err = m.Copy(cfg.Model); err != nil {
				return nil, err
			}
		}
		args := []string{"shard", "--model", file, "--join", c.Address(), "--listen", net.JoinHostPort(m.Addr.String(), shardPort), "--name", m.Name}
		if i+1 < len(cfg.Threads) && cfg.Threads[i+1] > 0 {
			args = append(args, "--threads", strconv.Itoa(cfg.Threads[i+1]))
		}
		c.programs[m.Name] = &program{args: slices.Concat(args, c.trust(m), cfg.ShardFlags)}
	}
	return c, nil
}

// Address is the coordinator's, in the lab.
func (c *Cluster) Address() string {
	return net.JoinHostPort(c.lab.Machines[0].Addr.String(), coordinatorPort)
}

// StartAll starts the coordinator and as many shards as it waits for.
func (c *Cluster) StartAll(ctx context.Context) error {
	if err := c.Start(c.lab.Machines[0]); err != nil {
		return err
	}
	if err := c.admit(ctx); err != nil {
		return err
	}
	for _, m := range c.lab.Machines[1 : 1+c.cfg.Shards] {
		if err := c.Start(m); err != nil {
			return err
		}
	}
	return nil
}

// Start starts what a machine is to run.
func (c *Cluster) Start(m *lab.Machine) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.programs[m.Name]
	if p.process != nil {
		select {
		case <-p.process.Done:
		default:
			return fmt.Errorf("machine %s runs already", m.Name)
		}
	}
	command := exec.Command(c.cfg.Binary, p.args...)
	to := &prefixed{out: c.cfg.Out, prefix: m.Name + " | "}
	command.Stdout, command.Stderr = to, to
	process, err := m.Start(command)
	if err != nil {
		return err
	}
	p.process = process
	go func() {
		err := process.Wait()
		fmt.Fprintf(c.cfg.Out, "%s | ended: %v\n", m.Name, cmp.Or(err, errors.New("exit status 0")))
	}()
	return nil
}

// Process is what runs in a machine, or ran last; nil if nothing ever did.
func (c *Cluster) Process(m *lab.Machine) *lab.Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.programs[m.Name].process
}

var errEnded = errors.New("the coordinator has ended: its output says why")

// Ready waits until the coordinator, which was started, has loaded a plan.
func (c *Cluster) Ready(ctx context.Context) error {
	client, err := c.Client()
	if err != nil {
		return err
	}
	client.Timeout = 10 * time.Second
	defer client.CloseIdleConnections()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL()+"/readyz", nil)
		if err != nil {
			return err
		}
		if answer, err := client.Do(request); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-c.Process(c.lab.Machines[0]).Done:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("the cluster did not become ready: %w", context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Binary is the daisy at a path, or one that is built into a folder if the path is empty.
func Binary(ctx context.Context, path, folder string, out io.Writer) (string, error) {
	if path != "" {
		return filepath.Abs(path)
	}
	built := filepath.Join(folder, "daisy")
	build := exec.CommandContext(ctx, "go", "build", "-o", built, "github.com/daisy-llm/daisy/cmd/daisy")
	build.Stdout, build.Stderr = out, out
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build daisy: %w: start the lab in Daisy's source, or say --daisy FILE", err)
	}
	return built, nil
}

// Model is the file of a model. The machines have no way to the internet, so this one fetches it.
func Model(ctx context.Context, model, binary string, out io.Writer) (string, error) {
	if _, err := os.Stat(model); err == nil {
		return filepath.Abs(model)
	}
	pull := exec.CommandContext(ctx, binary, "pull", model)
	pull.Stderr = out
	printed, err := pull.Output()
	if err != nil {
		return "", fmt.Errorf("fetch the model %s: %w", model, err)
	}
	path, _, _ := strings.Cut(string(printed), "\n")
	return path, nil
}
