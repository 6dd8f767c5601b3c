package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// How progress speaks: what is quick is quiet.
const (
	barAfter  = 300 * time.Millisecond
	lineEvery = 3 * time.Second // where there is no terminal
)

// progress shows how many bytes have come: a bar in a terminal, else a line every few seconds.
type progress struct {
	console *console

	mu      sync.Mutex
	started time.Time
	spoke   time.Time
	bars    *mpb.Progress
	bar     *mpb.Bar
	restore func()
}

func newProgress(c *console) *progress {
	now := time.Now()
	return &progress{console: c, started: now, spoke: now}
}

// set says how far it is; a total of 0 or less means that nobody knows.
func (p *progress) set(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case done <= 0 && total <= 0:
	case p.console.tty && time.Since(p.started) >= barAfter:
		p.drawLocked(done, total)
	case !p.console.tty && time.Since(p.spoke) >= lineEvery:
		p.spoke = time.Now()
		fmt.Fprintf(p.console, "daisy: %s\n", progressText(done, total))
	}
}

func progressText(done, total int64) string {
	if total <= 0 {
		return formatSize(done)
	}
	return fmt.Sprintf("%s of %s (%d %%)", formatSize(done), formatSize(total), int64(100*float64(done)/float64(total)))
}

func (p *progress) drawLocked(done, total int64) {
	if p.bar == nil {
		p.bars = mpb.New(mpb.WithOutput(p.console.file), mpb.WithWidth(40))
		p.bar = p.bars.New(0, mpb.BarStyle(), mpb.BarRemoveOnComplete(), mpb.AppendDecorators(
			decor.CountersKibiByte("% .1f / % .1f"), decor.AverageSpeed(decor.SizeB1024(0), "  % .1f"),
		))
		p.restore = p.console.writeOver(p.bars)
	}
	p.bar.SetTotal(max(total, done), false)
	p.bar.SetCurrent(done)
}

// end takes the bar away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar == nil {
		return
	}
	p.restore()
	p.bar.Abort(true)
	p.bars.Wait()
	p.bar = nil
}
