package cluster

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain waits for the goroutines that memberlist leaves to end by themselves; there is nothing that may stay.
func TestMain(m *testing.M) {
	code := m.Run()
	var leaked error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if leaked = goleak.Find(); leaked == nil {
			break
		}
	}
	if leaked != nil {
		fmt.Fprintln(os.Stderr, leaked)
		code = max(code, 1)
	}
	os.Exit(code)
}
