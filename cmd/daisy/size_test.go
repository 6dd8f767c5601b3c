package main

import (
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/services/cluster"
)

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"8GiB": 8 << 30, "8 GiB": 8 << 30, " 512MiB ": 512 << 20, "4G": 4e9, "1.5Gi": 3 << 29, "1048576": 1 << 20, "7kib": 7 << 10,
	} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "GiB", "-1GiB", "8 apples", "9EiB", "0", "1e40", "NaN", "8GiB,"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", s, got)
		}
	}
}

func TestParseSizes(t *testing.T) {
	got, err := parseSizes("8GiB, 512MiB,4GiB")
	if err != nil || len(got) != 3 || got[0] != 8<<30 || got[1] != 512<<20 || got[2] != 4<<30 {
		t.Errorf("parseSizes = %v, %v", got, err)
	}
	for _, s := range []string{"", "8GiB,", ",8GiB", "8GiB;4GiB"} {
		if got, err := parseSizes(s); err == nil {
			t.Errorf("parseSizes(%q) = %v, want an error", s, got)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 8 << 30: "8.00 GiB", -(512 << 20): "-512 MiB", 98765432: "94.2 MiB"} {
		if got := formatSize(n); got != want {
			t.Errorf("formatSize(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestMemoryFor(t *testing.T) {
	if got, err := memoryFor("64MiB", 3); err != nil || got != 64<<20 {
		t.Errorf("a flag gives %d, %v", got, err)
	}
	if got, err := memoryFor("", 2); err != nil || got <= 0 {
		t.Errorf("no flag gives %d, %v", got, err)
	}
	if _, err := cluster.MemoryLimit(); err != nil {
		return // this system does not say what there is
	}
	if got, err := memoryFor("4EiB", 1); err == nil || !strings.Contains(err.Error(), "in all") {
		t.Errorf("more than there is gives %d, %v", got, err)
	}
}
