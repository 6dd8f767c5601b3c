//go:build !race

package rpc_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/model/token"
)

// defaultLogits is the hash of the default model's logits, as the reference kernels computed them on one thread.
const defaultLogits = "da8f19ab26d4a725d91837440e03a6fb3add03fa8ceaee17e0219118f7301da7"

// TestDefaultModelHash does with the default model what TestLogitsHash does with tiny ones. The race detector would find
// nothing more in it, and take minutes.
func TestDefaultModelHash(t *testing.T) {
	out, err := exec.Command("go", "run", "../../cmd/daisy", "pull").Output() // fetches it, if need be, and says where it is
	if err != nil {
		t.Fatalf("fetch the default model: %v", err)
	}
	path, _, _ := strings.Cut(string(out), "\n")
	const layers = 30
	prompt := []token.ID{504, 3575, 282, 4649, 314, 7042, 30, 1, 49151, 0, 17, 20000}
	checkHash(t, path, []int{1, 2, 3, layers}, prompt, []token.ID{504, 28}, defaultLogits)
}
