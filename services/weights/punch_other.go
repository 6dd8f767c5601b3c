//go:build !linux

package weights

import "os"

const canPunch = false

func punch(*os.File, int64, int64) error { return nil }
