//go:build linux

package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"syscall"
	"testing"
)

var fetchedChunks = regexp.MustCompile(`msg="fetched weights".* chunks=(\d+) `)

// Shards in folders of their own, on a machine where nobody but the coordinator has the file, give the answer of a cluster that
// has it, with no more than their blocks on the disk; one that is killed while it fetches does not fetch again what it has.
func TestWeightsTravel(t *testing.T) {
	request := func() map[string]any {
		return map[string]any{"prompt": "A daisy is", "temperature": 0, "max_tokens": 24, "ignore_eos": true}
	}
	whole := up(t, 2)
	want, err := whole.complete(request())
	if err != nil {
		t.Fatal(err)
	}
	whole.end(t)

	dir := t.TempDir()
	raw, err := os.ReadFile(modelFile)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "model.gguf")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	address := freePort(t)
	c := &cluster{process: start(t, "coordinator", "--model", path, "--listen", address, "--shards", "2", "--context", "1024", "--cache-dir", filepath.Join(dir, "c")), address: address}
	waitFor(t, "the coordinator to listen", func() bool { return bytes.Contains([]byte(c.stdout.String()), []byte("Listening")) })
	if err := os.Remove(path); err != nil { // the coordinator has it open; no shard finds it
		t.Fatal(err)
	}
	shard := func(name string) *process {
		return start(t, "shard", "--join", address, "--name", name, "--threads", "1", "--memory", "170MiB", "--cache-dir", filepath.Join(dir, name))
	}
	states := func(name string) (present int) {
		files, _ := filepath.Glob(filepath.Join(dir, name, "chunks", "*", "0", "states"))
		for _, file := range files {
			raw, _ := os.ReadFile(file)
			present += len(raw) - bytes.Count(raw, []byte{0})
		}
		return present
	}
	shard("one")
	two := shard("two")
	waitFor(t, "chunks of the block", func() bool { return states("two") > 4 })
	two.signal(t, syscall.SIGKILL)
	<-two.done
	before := states("two")
	two = shard("two")
	c.waitReady(t)
	got, err := c.complete(request())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	fetched := 0
	for _, m := range fetchedChunks.FindAllStringSubmatch(two.stderr.String(), -1) {
		n, _ := strconv.Atoi(m[1])
		fetched += n
	}
	if after := states("two"); fetched > after-before && !bytes.Contains([]byte(two.stderr.String()), []byte("gave up weights")) {
		t.Errorf("%d chunks were there, and of %d at the end %d were fetched", before, after, fetched)
	}
	for _, name := range []string{"one", "two"} {
		files, _ := filepath.Glob(filepath.Join(dir, name, "chunks", "*", "0", "model.gguf"))
		if len(files) != 1 {
			t.Fatalf("the files of %s are %v", name, files)
		}
		var stat syscall.Stat_t
		if err := syscall.Stat(files[0], &stat); err != nil {
			t.Fatal(err)
		}
		if stat.Size != int64(len(raw)) || stat.Blocks*512 > stat.Size*19/20 {
			t.Errorf("%s has %d bytes on the disk of a file of %d", name, stat.Blocks*512, len(raw))
		}
	}
}
