package cluster

import (
	"errors"
	"os"
	"testing"
	"testing/fstest"
)

func TestAvailableMemory(t *testing.T) {
	const meminfo = "MemTotal:       16000000 kB\nMemFree:         100 kB\nMemAvailable:    8000000 kB\n"
	const available = 8000000 * 1024
	for _, test := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"no groups", nil, available},
		{"no limit", map[string]string{
			"proc/self/cgroup":              "0::/user\n",
			"sys/fs/cgroup/user/memory.max": "max\n",
		}, available},
		{"a limit above the memory", map[string]string{
			"proc/self/cgroup":              "0::/user\n",
			"sys/fs/cgroup/user/memory.max": "99999999999999\n",
		}, available},
		{"a limit", map[string]string{
			"proc/self/cgroup":                  "0::/user\n",
			"sys/fs/cgroup/user/memory.max":     "1000000\n",
			"sys/fs/cgroup/user/memory.current": "300000\n",
			"sys/fs/cgroup/user/memory.stat":    "anon 100000\nfile 200000\nfile_mapped 5\n",
		}, 900000},
		{"a limit further up", map[string]string{
			"proc/self/cgroup":             "0::/pod/box\n",
			"sys/fs/cgroup/pod/memory.max": "500000\n",
		}, 500000},
		{"in a container that sees its own group alone", map[string]string{
			"proc/self/cgroup":         "0::/docker/0123\n",
			"sys/fs/cgroup/memory.max": "700000\n",
		}, 700000},
		{"version 1", map[string]string{
			"proc/self/cgroup": "5:cpu,cpuacct:/x\n4:hugetlb,memory:/box\n0::/\n",
			"sys/fs/cgroup/memory/box/memory.limit_in_bytes": "400000\n",
			"sys/fs/cgroup/memory/box/memory.usage_in_bytes": "300000\n",
			"sys/fs/cgroup/memory/box/memory.stat":           "cache 7\ntotal_cache 100000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":     "9223372036854771712\n",
		}, 200000},
		{"more used than allowed", map[string]string{
			"proc/self/cgroup":             "0::/\n",
			"sys/fs/cgroup/memory.max":     "400000\n",
			"sys/fs/cgroup/memory.current": "900000\n",
		}, 0},
		{"a path that leads nowhere", map[string]string{"proc/self/cgroup": "0::/../../x\nnonsense\n1:memory\n"}, available},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := fstest.MapFS{"proc/meminfo": {Data: []byte(meminfo)}}
			for name, text := range test.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			if got, err := availableIn(root); err != nil || got != test.want {
				t.Errorf("got %d, %v, want %d", got, err, test.want)
			}
		})
	}
	for _, text := range []string{"", "MemAvailable:\n", "MemAvailable: -1 kB\n", "MemAvailable: 9223372036854775807 kB\n"} {
		if got, err := availableIn(fstest.MapFS{"proc/meminfo": {Data: []byte(text)}}); !errors.Is(err, errUnknownMemory) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	if _, err := availableIn(fstest.MapFS{}); !errors.Is(err, errUnknownMemory) {
		t.Errorf("without a proc file system: %v", err)
	}
}

func TestLimitAndRoom(t *testing.T) {
	root := fstest.MapFS{}
	add := func(name, text string) { root[name] = &fstest.MapFile{Data: []byte(text)} }
	expect := func(what string, got int64, err error, want int64) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", what, got, err, want)
		}
	}
	add("proc/meminfo", "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n")
	add("proc/self/statm", "9000 300 100 1 0 5 0\n")
	own := 200 * int64(os.Getpagesize())
	limit, err := limitIn(root)
	expect("the machine's limit", limit, err, 16000000<<10)
	room, err := roomIn(root)
	expect("room on the machine", room, err, 8000000<<10+own)

	add("proc/self/cgroup", "0::/box\n")
	add("sys/fs/cgroup/box/memory.max", "230000000\n")
	add("sys/fs/cgroup/box/memory.current", "220000000\n")
	add("sys/fs/cgroup/box/memory.stat", "anon 50000000\nfile 170000000\n")
	limit, err = limitIn(root)
	expect("the group's limit", limit, err, 230000000)
	room, err = roomIn(root)
	expect("room in the group", room, err, 180000000+own)

	for _, text := range []string{"", "1 2", "9000 100 300", "9000 -1 -2", "9000 9223372036854775807 0"} {
		add("proc/self/statm", text)
		if got, err := roomIn(root); !errors.Is(err, errUnknownMemory) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	if _, err := limitIn(fstest.MapFS{}); !errors.Is(err, errUnknownMemory) {
		t.Errorf("without a proc file system: %v", err)
	}
	if limit, err := MemoryLimit(); err != nil || limit <= 0 {
		t.Errorf("this machine's limit is %d, %v", limit, err)
	}
	if room, err := MemoryRoom(); err != nil || room <= 0 {
		t.Errorf("this machine has room for %d, %v", room, err)
	}
}
