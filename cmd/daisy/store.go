package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/daisy-llm/daisy/services/catalogue"
)

// store is where models come from and are kept.
func (c *cli) store() (*catalogue.Store, error) {
	dir, err := c.env.cacheFolder()
	if err != nil {
		return nil, err
	}
	return catalogue.New(catalogue.Config{
		Dir:        dir,
		HFEndpoint: c.env.hfEndpoint,
		HFToken:    c.env.hfToken,
		Proxy:      http.ProxyFromEnvironment,
	}, catalogue.Default())
}

// resolve finds a model, and shows what happens while it is fetched.
func (c *cli) resolve(ctx context.Context, store *catalogue.Store, name string) (catalogue.Local, error) {
	display := &downloadDisplay{console: c.console, progress: newProgress(c.console)}
	defer func() { display.progress.end() }()
	local, err := store.Resolve(ctx, name, display)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return local, cause
	}
	return local, err
}

// defaultModel is what is served when nobody says what.
func defaultModel() string { return catalogue.Default().Models()[0].Name }

// downloadDisplay shows what a catalogue.Store does: its notes as lines, its bytes as progress.
type downloadDisplay struct {
	console  *console
	progress *progress
}

func (d *downloadDisplay) Note(text string) {
	d.progress.end()
	fmt.Fprintf(d.console, "daisy: %s\n", printable(oneLine(text)))
	d.progress = newProgress(d.console)
}

func (d *downloadDisplay) Bytes(done, total int64) { d.progress.set(done, total) }
