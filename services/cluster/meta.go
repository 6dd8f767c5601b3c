package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode"
	"unicode/utf8"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

// What a member says of itself travels with its gossip, so it is small: a version, then numbers as varints, the
// measured speed as a float32, and the binary's version as a length and that many bytes.
const (
	metaVersion = 1
	maxMeta     = 256 // bytes; memberlist ends the process above 512
	maxName     = 64  // bytes of a member's name
	maxVersion  = 32  // bytes of the binary's version
)

// encodeMeta writes what peers must know of a member, besides name and address, which memberlist carries.
func encodeMeta(m plan.Member) []byte {
	b := make([]byte, 0, maxMeta)
	b = append(b, metaVersion, byte(m.Role), byte(m.State))
	b = binary.AppendUvarint(b, uint64(m.PID))
	b = binary.AppendUvarint(b, uint64(m.Cores))
	b = binary.AppendUvarint(b, uint64(m.Memory))
	b = binary.BigEndian.AppendUint32(b, math.Float32bits(float32(m.Speed)))
	b = binary.AppendUvarint(b, m.Plan)
	b = binary.AppendUvarint(b, uint64(m.Protocol))
	b = binary.AppendUvarint(b, uint64(m.Numerics))
	b = append(b, byte(len(m.Version)))
	return append(b, m.Version...)
}

// decodeMeta reads what encodeMeta writes. The bytes come from peers: a member that none of ours could be is refused.
func decodeMeta(b []byte) (plan.Member, error) {
	if len(b) > maxMeta {
		return plan.Member{}, fmt.Errorf("metadata of %d bytes, more than %d", len(b), maxMeta)
	}
	if len(b) < 3 {
		return plan.Member{}, errors.New("metadata is cut off")
	}
	if b[0] != metaVersion {
		return plan.Member{}, fmt.Errorf("metadata of version %d, this binary speaks %d: run the same version everywhere", b[0], metaVersion)
	}
	m := plan.Member{Role: plan.Role(b[1]), State: plan.State(b[2])}
	b = b[3:]
	var bad error
	number := func(limit uint64) uint64 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > limit {
			bad = errors.New("metadata holds a number that is cut off or too large")
			return 0
		}
		b = b[size:]
		return n
	}
	m.PID = int(number(math.MaxInt32))
	m.Cores = int(number(math.MaxInt32))
	m.Memory = int64(number(math.MaxInt64))
	if len(b) < 4 {
		return plan.Member{}, errors.New("metadata is cut off")
	}
	m.Speed = float64(math.Float32frombits(binary.BigEndian.Uint32(b)))
	b = b[4:]
	m.Plan = number(math.MaxUint64)
	m.Protocol = uint32(number(math.MaxUint32))
	m.Numerics = uint32(number(math.MaxUint32))
	if bad != nil {
		return plan.Member{}, bad
	}
	if len(b) == 0 || int(b[0]) != len(b)-1 {
		return plan.Member{}, errors.New("metadata does not end where it says")
	}
	m.Version = string(b[1:])
	return m, checkMember(m)
}

// checkMember holds a member, ours or a peer's, against the bounds of the metadata.
func checkMember(m plan.Member) error {
	switch {
	case m.Role > plan.Coordinator:
		return fmt.Errorf("%s is not known", m.Role)
	case m.State > plan.Draining:
		return fmt.Errorf("%s is not known", m.State)
	case m.PID < 0 || m.PID > math.MaxInt32, m.Cores < 0 || m.Cores > math.MaxInt32, m.Memory < 0:
		return fmt.Errorf("pid %d, %d cores, %d bytes of memory are not possible", m.PID, m.Cores, m.Memory)
	case !(m.Speed >= 0 && m.Speed <= math.MaxFloat32): // not a number fails too
		return fmt.Errorf("a speed of %g GB/s is not possible", m.Speed)
	case len(m.Version) > maxVersion || !printable(m.Version):
		return fmt.Errorf("version %q is not printable or longer than %d bytes", clip(m.Version), maxVersion)
	}
	return nil
}

// checkName bounds what names a member: it is shown to people, and every message carries it.
func checkName(name string) error {
	if name == "" || len(name) > maxName || !printable(name) {
		return fmt.Errorf("name %q must have 1 to %d printable bytes", clip(name), maxName)
	}
	return nil
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsGraphic(r) {
			return false
		}
	}
	return true
}

// clip keeps messages about hostile strings short.
func clip(s string) string { return s[:min(len(s), 2*maxName)] }
