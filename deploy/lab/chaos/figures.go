//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// figures are what a run comes to.
type figures struct {
	mu     sync.Mutex
	ends   map[end]int
	tokens int
	faults map[string]int
}

func (f *figures) ended(how end, tokens int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ends[how]++
	f.tokens += tokens
}

func (f *figures) struck(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[kind]++
}

// print says it all, in one piece.
func (f *figures) print(out io.Writer, took time.Duration, silences map[string][]time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(out, "\n%v, %d tokens\nfaults:", took.Round(time.Second), f.tokens)
	for _, kind := range kinds {
		fmt.Fprintf(out, " %s %d", kind, f.faults[kind])
	}
	fmt.Fprint(out, "\nstreams:")
	for how := complete; how <= given; how++ {
		fmt.Fprintf(out, " %v %d", how, f.ends[how])
	}
	fmt.Fprintln(out)
	for _, kind := range kinds {
		all := silences[kind]
		if len(all) == 0 {
			continue
		}
		slices.Sort(all)
		at := func(share float64) time.Duration { return all[int(share*float64(len(all)-1))].Round(time.Millisecond) }
		fmt.Fprintf(out, "longest silence after %s, of %d streams that went on: p50 %v, p99 %v, most %v\n", kind, len(all), at(0.5), at(0.99), at(1))
	}
}

// verdict is what must not be. Streams that fail with an error are forgiven on request; a wrong answer is not.
func (f *figures) verdict(forgive bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	bad := f.ends[different] + f.ends[falseEnd] + f.ends[silent]
	if !forgive {
		bad += f.ends[failed]
	}
	switch {
	case bad > 0:
		return fmt.Errorf("%d streams did not end as they must", bad)
	case f.ends[complete] == 0:
		return fmt.Errorf("no stream was completed")
	}
	return nil
}

// held is what a process holds that it might leak.
type held struct{ files, threads int }

func holds(pid int) (h held, err error) {
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return h, err
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return held{len(files), len(threads)}, err
}
