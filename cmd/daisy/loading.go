package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/daisy-llm/daisy/coordinator"
)

// loadingDisplay says what a cluster that starts is doing: a line that changes in a terminal, else a line every few
// seconds.
type loadingDisplay struct {
	console *console
	text    atomic.Pointer[string]
	spoke   time.Time
	bars    *mpb.Progress
	bar     *mpb.Bar
	restore func()
}

func showLoading(c *console, text string) *loadingDisplay {
	d := &loadingDisplay{console: c}
	if c.tty {
		d.bars = mpb.New(mpb.WithOutput(c.file), mpb.WithWidth(1))
		d.bar = d.bars.AddSpinner(0, mpb.BarRemoveOnComplete(), mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			return " " + *d.text.Load()
		})))
		d.restore = c.writeOver(d.bars)
	}
	empty := ""
	d.text.Store(&empty)
	d.set(text)
	return d
}

func (d *loadingDisplay) set(text string) {
	d.text.Store(&text)
	if d.bar == nil && time.Since(d.spoke) >= lineEvery {
		d.spoke = time.Now()
		fmt.Fprintf(d.console, "daisy: %s\n", text)
	}
}

func (d *loadingDisplay) end() {
	if d.bar == nil {
		return
	}
	d.restore()
	d.bar.Abort(true)
	d.bars.Wait()
	d.bar = nil
}

// follow shows what the coordinator says, until ctx ends or the cluster turns out never to be ready; it returns why.
func (d *loadingDisplay) follow(ctx context.Context, api *client, shards int) error {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
		s, err := api.status(ctx)
		if err != nil {
			continue // it is not up yet, or it is about to end, which ctx will say
		}
		for _, shard := range s.Shards {
			if shard.State == "unfit" { // no other shard will come in its place
				return fmt.Errorf("shard %s: %s", printable(shard.Name), printable(shard.Detail))
			}
		}
		d.set(loadingText(s, shards))
	}
}

// loadingText says how far a cluster of so many shards has come.
func loadingText(s coordinator.Status, shards int) string {
	if len(s.Shards) < shards {
		return fmt.Sprintf("%d of %s joined", len(s.Shards), count(shards, "shard"))
	}
	ready := 0
	for _, shard := range s.Shards {
		if shard.State == "ready" {
			ready++
		}
	}
	text := fmt.Sprintf("loading %s: %d of %s ready", printable(s.Model), ready, count(shards, "shard"))
	if s.Detail != "" {
		text += " (" + printable(oneLine(s.Detail)) + ")"
	}
	return text
}
