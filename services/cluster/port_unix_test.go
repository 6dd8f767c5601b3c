//go:build unix

package cluster

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
)

func TestPortTaken(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := Listen("127.0.0.1:0") // a number whose TCP half was free a moment ago
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if err := udp.tcp.Close(); err != nil {
		t.Fatal(err)
	}
	for protocol, address := range map[string]string{"TCP": tcp.Addr().String(), "UDP": udp.Addr().String()} {
		_, err := Listen(address)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("%s taken: %v", protocol, err)
		}
		for _, want := range []string{"another process has the " + protocol + " port", "choose another"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s taken: %q does not say %q", protocol, err, want)
			}
		}
		if strings.Count(err.Error(), address) != 1 {
			t.Errorf("the address is not there once: %q", err)
		}
	}
}
