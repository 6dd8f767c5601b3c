//go:build linux

package lab

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/daisy-llm/daisy/deploy/lab/cgroup"
)

// prefix begins the names of all that a lab makes where others have names, too.
const prefix = "daisy-lab-"

const idSize = 4 // bytes

// record is what a lab writes down of itself before it makes anything, and locks as long as it lives.
type record struct {
	ID       string          `json:"id"`
	PID      int             `json:"pid"`
	Cgroups  []string        `json:"cgroups"` // removed with all that is in them
	Disk     string          `json:"disk"`    // removed with all that is in it
	Machines []MachineRecord `json:"machines"`

	dir  string
	lock *os.File
}

// MachineRecord says how another process gets into a machine: see Enter.
type MachineRecord struct {
	Name      string     `json:"name"`
	Addr      netip.Addr `json:"addr"`
	Namespace string     `json:"namespace"` // a file that stands for its network
	Members   []string   `json:"members"`   // files of its cgroups that take the id of a process
}

// open begins a lab, after removing those that are stale.
func open(config Config, tree *cgroup.Tree) (*record, error) {
	if config.Dir == "" {
		config.Dir = DefaultDir
	}
	if config.Disk == "" {
		config.Disk = os.TempDir()
	}
	var id [idSize]byte
	rand.Read(id[:])
	r := &record{ID: hex.EncodeToString(id[:]), PID: os.Getpid()}
	r.dir = filepath.Join(config.Dir, r.ID)
	r.Cgroups = tree.Dirs(prefix + r.ID)
	disk, err := filepath.Abs(filepath.Join(config.Disk, prefix+r.ID))
	if err != nil {
		return nil, fmt.Errorf("make a lab: %w", err)
	}
	r.Disk = disk
	return r, alone(config.Dir, func() error {
		if err := clean(config.Dir); err != nil {
			return err
		}
		if err := os.Mkdir(r.dir, 0o700); err != nil {
			return fmt.Errorf("make a lab: %w", err)
		}
		if r.lock, err = lock(filepath.Join(r.dir, "lock"), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return err
		}
		if err := r.write(); err != nil {
			return err
		}
		if err := os.Mkdir(r.Disk, 0o700); err != nil {
			return fmt.Errorf("make a lab: %w", err)
		}
		return nil
	})
}

// describe adds what others need to get into the machines.
func (r *record) describe(machines []*Machine) error {
	for _, m := range machines {
		r.Machines = append(r.Machines, MachineRecord{
			Name: m.Name, Addr: m.Addr, Members: m.group.Members(),
			Namespace: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), m.namespace),
		})
	}
	return r.write()
}

func (r *record) write() error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	fresh := filepath.Join(r.dir, "lab.json.new")
	if err := os.WriteFile(fresh, raw, 0o600); err != nil {
		return fmt.Errorf("write down what the lab makes: %w", err)
	}
	return os.Rename(fresh, filepath.Join(r.dir, "lab.json"))
}

// remove takes away all that is written down, and at last the record itself.
func (r *record) remove() error {
	if err := errors.Join(cgroup.Remove(r.Cgroups), os.RemoveAll(r.Disk)); err != nil {
		return fmt.Errorf("remove lab %s: %w", r.ID, err)
	}
	if err := os.RemoveAll(r.dir); err != nil {
		return fmt.Errorf("remove lab %s: %w", r.ID, err)
	}
	return r.lock.Close()
}

// Clean removes the labs whose process is gone. Up does so, too.
func Clean(dir string) error {
	return alone(dir, func() error { return clean(dir) })
}

func clean(dir string) error {
	return each(dir, func(r *record) error {
		lock, err := lock(filepath.Join(r.dir, "lock"), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil // it lives
		}
		if err != nil {
			return err
		}
		r.lock = lock
		return r.remove()
	})
}

// Living are the labs that run, by their ids.
func Living(dir string) (labs map[string][]MachineRecord, err error) {
	labs = map[string][]MachineRecord{}
	err = each(dir, func(r *record) error {
		lock, err := lock(filepath.Join(r.dir, "lock"), unix.LOCK_SH|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			labs[r.ID] = r.Machines
			return nil
		}
		if err != nil {
			return err
		}
		return lock.Close()
	})
	return labs, err
}

// each calls f for each lab that wrote something down. One that died before it could write made nothing but its directory.
func each(dir string, f func(*record) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for labs: %w", err)
	}
	for _, entry := range entries {
		if id, err := hex.DecodeString(entry.Name()); err != nil || len(id) != idSize {
			continue // somebody else's
		}
		r := &record{}
		raw, err := os.ReadFile(filepath.Join(dir, entry.Name(), "lab.json"))
		if err == nil {
			if err := json.Unmarshal(raw, r); err != nil {
				return fmt.Errorf("read what lab %s made: %w", entry.Name(), err)
			}
			if err := r.check(); err != nil {
				return fmt.Errorf("read what lab %s made: %w", entry.Name(), err)
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read what lab %s made: %w", entry.Name(), err)
		}
		r.ID, r.dir = entry.Name(), filepath.Join(dir, entry.Name())
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

// check: all that is removed bears the name of the lab, whatever a file says.
func (r *record) check() error {
	for _, path := range append([]string{r.Disk}, r.Cgroups...) {
		if r.ID == "" || filepath.Base(path) != prefix+r.ID || !filepath.IsAbs(path) || strings.Contains(path, "..") {
			return fmt.Errorf("%q is not named after lab %q", path, r.ID)
		}
	}
	return nil
}

// alone runs f while no other lab begins or cleans up.
func alone(dir string, f func() error) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a lab: %w", err)
	}
	lock, err := lock(filepath.Join(dir, "lock"), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer lock.Close()
	return f()
}

// lock locks a file until it is closed, or this process has ended.
func lock(path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for {
		err = unix.Flock(int(file.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return file, nil
}
