package main

import (
	"strings"
	"testing"
	"time"

	"github.com/daisy-llm/daisy/coordinator"
)

func TestFiguresLine(t *testing.T) {
	shards := []coordinator.ShardStatus{
		{Name: "a3", First: 0, Last: 0, Stage: -1}, {Name: "a4", First: 29, Last: 29, Stage: 3}, {Name: "a2", First: 10, Last: 29, Stage: 2},
		{Name: "a1", First: 0, Last: 9, Stage: 0}, {Name: "a5", First: 9, Last: 10, Stage: 1},
	}
	got := figuresLine(chatFigures{PromptTokens: 42, GeneratedTokens: 129, Decode: time.Second}, shards)
	want := "42 prompt + 129 generated tokens, 128.0 tokens/s, 5 shards: a1 layers 0-8, a5 layer 9, a2 layers 10-28, a4 no layers, a3 spare"
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got, want := figuresLine(chatFigures{PromptTokens: 2, GeneratedTokens: 1}, nil), "2 prompt + 1 generated tokens"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got, want := shardsLine(shards[3:4]), "1 shard: a1 layers 0-8"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestWriteStatus(t *testing.T) {
	var b strings.Builder
	err := writeStatus(&b, coordinator.Status{
		Coordinator: "127.0.0.1:8080", Version: "v1", Model: "m", SHA256: "ab", Context: 4096, CacheType: "f16", State: "ready", Plan: "1@c", Layers: 30,
		Active: 3, Recovering: 2, Waiting: 1,
		Shards: []coordinator.ShardStatus{
			{Name: "雏菊", PID: 12, Address: "127.0.0.1:2", First: 15, Last: 30, State: "ready", Cores: 2, Memory: 8 << 30, Planned: 1 << 29, Stage: 1, Missing: 3 << 20},
			{Name: "a1\x1b[31m", PID: 11, Address: "127.0.0.1:1", First: 0, Last: 15, State: "ready", Cores: 2, Memory: 8 << 30, Planned: 1 << 29},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `coordinator  127.0.0.1:8080, daisy v1
state        ready
model        m, 30 layers, sha256 ab
context      4096 positions, f16 cache
plan         1@c
generations  3 running (2 recovering), 1 waiting

STAGE  SHARD   LAYERS  STATE  MEMORY    PLANNED  WITHOUT IT        CORES  PID  ADDRESS
0      a1[31m  0-14    ready  8.00 GiB  512 MiB  survives              2   11  127.0.0.1:1
1      雏菊    15-29   ready  8.00 GiB  512 MiB  3.00 MiB missing      2   12  127.0.0.1:2
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}
