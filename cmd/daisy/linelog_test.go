package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestLineLog(t *testing.T) {
	var out strings.Builder
	l := &lineLog{prefix: "[a1] ", to: &out}
	for _, piece := range []string{"one\ntw", "o\r\n", "\n", "three"} {
		io.WriteString(l, piece)
	}
	if got, want := out.String(), "[a1] one\n[a1] two\n[a1] \n"; got != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
	if got := l.lastLine(); got != "two" {
		t.Errorf("last line %q before the flush", got)
	}
	l.flush()
	l.flush()
	if got, want := out.String(), "[a1] one\n[a1] two\n[a1] \n[a1] three\n"; got != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
	if got := l.lastLine(); got != "three" {
		t.Errorf("last line %q", got)
	}
}

func TestLineLogKeepsTheLastLines(t *testing.T) {
	l := &lineLog{prefix: "[a1] "}
	for i := range keptLines + 5 {
		fmt.Fprintln(l, i)
	}
	var out strings.Builder
	l.show(&out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != keptLines || lines[0] != "[a1] 5" || lines[keptLines-1] != fmt.Sprintf("[a1] %d", keptLines+4) {
		t.Errorf("kept %q", lines)
	}
}

func TestLineLogCutsEndlessLines(t *testing.T) {
	var out strings.Builder
	l := &lineLog{to: &out}
	for range 5 {
		io.WriteString(l, strings.Repeat("x", maxLineBytes/2))
	}
	l.flush()
	line := strings.Repeat("x", maxLineBytes) + "\n"
	if got, want := out.String(), line+line+line[maxLineBytes/2:]; got != want {
		t.Errorf("wrote %d bytes, want %d", len(got), len(want))
	}
}
