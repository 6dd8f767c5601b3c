package cluster

import (
	"net/netip"
	"testing"
)

func TestIsLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:7000": true, "127.8.9.1:0": true, "localhost:7000": true, "[::1]:7000": true, "[::ffff:127.0.0.1]:80": true,
		":7000": false, "0.0.0.0:7000": false, "[::]:7000": false, "10.0.0.1:7000": false, "example.org:7000": false,
		"localhost.example.org:7000": false, "127.0.0.1": false, "": false,
	} {
		if got := IsLoopback(address); got != want {
			t.Errorf("%q: %t", address, got)
		}
	}
}

func TestAdvertised(t *testing.T) {
	bound := netip.MustParseAddrPort("127.0.0.1:7000")
	for operator, want := range map[string]string{
		"": "127.0.0.1:7000", "10.1.2.3": "10.1.2.3:7000", "10.1.2.3:99": "10.1.2.3:99", "[fd00::1]:99": "[fd00::1]:99", "fd00::1": "[fd00::1]:7000",
	} {
		if got, err := advertised(operator, bound); err != nil || got.String() != want {
			t.Errorf("%q: %s, %v", operator, got, err)
		}
	}
	// Bound to every address, one of the machine's own is named; a machine may have none but loopback.
	if got, err := advertised("", netip.MustParseAddrPort("[::]:7000")); err == nil && (!got.Addr().IsGlobalUnicast() || got.Port() != 7000) {
		t.Errorf("got %s", got)
	}
}
