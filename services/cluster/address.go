package cluster

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// IsLoopback says whether host:port is reachable from this machine alone. An empty host is every address.
func IsLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// advertised is the address at which others find a port that is bound to bound: what the operator says, host or
// host:port, or the bound address itself, or where that is every address, one of the machine's own.
func advertised(operator string, bound netip.AddrPort) (netip.AddrPort, error) {
	if operator == "" {
		if !bound.Addr().IsUnspecified() {
			return bound, nil
		}
		ip, err := machineAddress()
		return netip.AddrPortFrom(ip, bound.Port()), err
	}
	host, port := operator, int(bound.Port())
	if h, p, err := net.SplitHostPort(operator); err == nil {
		if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
			return netip.AddrPort{}, fmt.Errorf("advertise %q: the port must be a number from 1 to 65535", operator)
		}
		host = h
	}
	ips, err := net.LookupIP(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("advertise %q: %w", operator, err)
	}
	ip, _ := netip.AddrFromSlice(ips[0])
	if ip = ip.Unmap(); ip.IsUnspecified() {
		return netip.AddrPort{}, fmt.Errorf("advertise %q: name an address that others can reach", operator)
	}
	return netip.AddrPortFrom(ip, uint16(port)), nil
}

// machineAddress is an address of this machine that others may reach: a private IPv4 one first.
func machineAddress() (netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find an address to advertise: %w", err)
	}
	var best netip.Addr
	rank := func(ip netip.Addr) int {
		switch {
		case !ip.IsGlobalUnicast(): // loopback, link-local
			return 0
		case ip.Is4() && ip.IsPrivate():
			return 3
		case ip.Is4():
			return 2
		}
		return 1
	}
	for _, a := range addrs {
		network, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(network.IP); ok && rank(ip.Unmap()) > rank(best) {
			best = ip.Unmap()
		}
	}
	if !best.IsValid() {
		return netip.Addr{}, fmt.Errorf("this machine has no address that others could reach: say which one to advertise")
	}
	return best, nil
}
