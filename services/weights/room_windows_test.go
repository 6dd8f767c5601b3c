package weights

import "testing"

// room is never asked for where files have no holes.
func room(*testing.T, string) int64 { return 0 }
