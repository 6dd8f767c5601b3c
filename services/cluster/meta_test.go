package cluster

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

// largest has every field at the value that takes the most room.
var largest = plan.Member{
	Role: plan.Coordinator, State: plan.Draining, PID: math.MaxInt32, Cores: math.MaxInt32, Memory: math.MaxInt64,
	Speed: math.MaxFloat32, Plan: math.MaxUint64, Protocol: math.MaxUint32, Numerics: math.MaxUint32,
	Version: strings.Repeat("v", maxVersion),
}

func TestMetaFits(t *testing.T) {
	for _, m := range []plan.Member{{}, largest, {Role: plan.Shard, State: plan.Ready, Speed: 12.25, Version: "v0.1.0-ü"}} {
		b := encodeMeta(m)
		if len(b) > maxMeta {
			t.Errorf("%d bytes for %+v", len(b), m)
		}
		if got, err := decodeMeta(b); err != nil || got != m {
			t.Errorf("%+v became %+v, %v", m, got, err)
		}
		for n := range b {
			if got, err := decodeMeta(b[:n]); err == nil {
				t.Errorf("cut off after %d bytes, %+v became %+v", n, m, got)
			}
		}
		if got, err := decodeMeta(append(b, 0)); err == nil {
			t.Errorf("with a byte too many, %+v became %+v", m, got)
		}
	}
}

func TestMetaThatCannotBe(t *testing.T) {
	for name, m := range map[string]plan.Member{
		"role":           {Role: 2},
		"state":          {State: 4},
		"pid":            {PID: math.MaxInt32 + 1},
		"cores":          {Cores: math.MaxInt32 + 1},
		"memory":         {Memory: -1},
		"negative speed": {Speed: -1},
		"no number":      {Speed: math.NaN()},
		"infinite speed": {Speed: math.Inf(1)},
		"version":        {Version: "a\nb"},
		"long version":   {Version: strings.Repeat("v", maxVersion+1)},
		"no UTF-8":       {Version: "\xff"},
	} {
		if got, err := decodeMeta(encodeMeta(m)); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

func FuzzMeta(f *testing.F) {
	f.Add(encodeMeta(largest))
	f.Add(encodeMeta(plan.Member{}))
	f.Add([]byte{metaVersion, 0, 0, 0x80, 0x80, 0x80})
	f.Add(bytes.Repeat([]byte{0xff}, 300))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		again, err := decodeMeta(encodeMeta(m))
		if err != nil || again != m {
			t.Errorf("%x is %+v, which becomes %+v, %v", b, m, again, err)
		}
	})
}
