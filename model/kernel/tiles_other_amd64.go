//go:build amd64 && !linux && !purego

package kernel

// mayUseTiles: how other systems hand out the tiles of AMX is not known here.
func mayUseTiles() bool { return false }
