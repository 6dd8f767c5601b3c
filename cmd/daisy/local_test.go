package main

import (
	"testing"

	"github.com/daisy-llm/daisy/coordinator"
)

func TestDialable(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:8080": "127.0.0.1:8080", "0.0.0.0:80": "127.0.0.1:80", "[::]:80": "127.0.0.1:80", ":80": "127.0.0.1:80",
		"[::1]:80": "[::1]:80", "10.0.0.7:80": "10.0.0.7:80", "name:80": "name:80",
	} {
		if got := dialable(address); got != want {
			t.Errorf("dialable(%q) = %q, want %q", address, got, want)
		}
	}
}

func TestLoadingText(t *testing.T) {
	s := coordinator.Status{Model: "m", Shards: []coordinator.ShardStatus{{State: "ready"}, {State: "loading"}}}
	if got, want := loadingText(s, 3), "2 of 3 shards joined"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := loadingText(s, 2), "loading m: 1 of 2 shards ready"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s.Detail = "a2 at\n50 %"
	if got, want := loadingText(s, 2), "loading m: 1 of 2 shards ready (a2 at; 50 %)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestOneLine(t *testing.T) {
	if got, want := oneLine("a\n  b\r\n\nc\n"), "a; b; c"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestPrintable(t *testing.T) {
	if got, want := printable("a\x1b[2J\a雏菊\u202e 👩‍🌾\tb\n\u009b"), "a[2J雏菊 👩‍🌾\tb\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
