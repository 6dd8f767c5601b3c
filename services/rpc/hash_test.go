package rpc_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/daisy-llm/daisy/model/kernel"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

// hash runs a prompt at once, then some tokens one by one, and gives the SHA-256 of the logits after every position, as
// little-endian float32.
func (l *line) hash(t *testing.T, prompt, steps []token.ID) string {
	t.Helper()
	h := sha256.New()
	l.begin(t, 1, len(prompt))
	add := func(first int, ids []token.ID) {
		out := l.run(t, 1, token.Position(first), ids, pass.Wants{Logits: true})
		if out.Refused != nil || len(out.Logits) != len(ids)*l.vocab {
			t.Fatalf("%d logits for %d positions: %v", len(out.Logits), len(ids), out.Refused)
		}
		bytes := make([]byte, 0, 4*len(out.Logits))
		for _, v := range out.Logits {
			bytes = binary.LittleEndian.AppendUint32(bytes, math.Float32bits(v))
		}
		h.Write(bytes)
	}
	add(0, prompt)
	for i := range steps {
		add(len(prompt)+i, steps[i:i+1])
	}
	if err := l.Release(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// checkHash compares the hash over every kernel Set, one and two threads, and each number of stages. Of several Sets the
// reference runs once: it is slow.
func checkHash(t *testing.T, path string, stages []int, prompt, steps []token.ID, want string) {
	t.Helper()
	sets := kernel.Sets()
	for i, set := range sets {
		for threads := 1; threads <= 2; threads++ {
			for _, n := range stages {
				if i == 0 && len(sets) > 1 && (threads != 2 || n != 2) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d threads/%d stages", set.Name, threads, n), func(t *testing.T) {
					l := startLine(t, path, n, kvcache.F16, workerOptions{kernels: set, threads: threads})
					if got := l.hash(t, prompt, steps); got != want {
						t.Errorf("the logits have the hash\n%s\nand not the stored\n%s", got, want)
					}
				})
			}
		}
	}
}

// TestLogitsHash holds what a pipeline of shards computes, over real connections, to the hashes that package model holds its
// blocks to: one architecture for every order of norms. How the others are cut is TestOneAnswer's.
func TestLogitsHash(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "model", "testdata", "logits.json"))
	if err != nil {
		t.Fatal(err)
	}
	var stored map[string]string
	if err := json.Unmarshal(data, &stored); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"llama", "olmo2", "gemma3"} {
		t.Run(name, func(t *testing.T) {
			g := openGolden(t, name)
			short := g.Prompts["short"]
			checkHash(t, g.path, []int{1, 2, 3, g.Shape.L}, short.TokenIDs, short.GreedyIDs[:3], stored[name+", short prompt, f16 cache"])
		})
	}
}
