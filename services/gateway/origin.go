package gateway

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// A browser lets any page send requests to a server on the user's own machine. Two checks keep such pages out:
//
//   - Host: a page whose name was made to resolve to 127.0.0.1 after it had loaded (DNS rebinding) is, to the browser, the
//     same origin as Daisy. Its requests still carry its own name as Host.
//   - Origin: a page of another origin says so in this header. curl, the SDKs and other programs send none.
//
// Neither replaces authentication: a program on the machine may send what it likes.

// checkHost refuses a Host that a browser could have been tricked into. A rebound name is never an IP address.
func (g *Gateway) checkHost(r *http.Request) *problem {
	name := hostName(r.Host)
	if _, err := netip.ParseAddr(name); err == nil || name == "" || isLocalName(name) { // browsers always give a name
		return nil
	}
	if slices.ContainsFunc(g.cfg.AllowedHosts, func(allowed string) bool { return strings.EqualFold(allowed, name) }) {
		return nil
	}
	// Beyond loopback the operator chose who may connect, and names are how machines of a network call each other.
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && len(g.cfg.AllowedHosts) == 0 && !isLoopback(local) {
		return nil
	}
	return &problem{status: http.StatusForbidden, kind: kindRequest, code: "host_not_allowed",
		message: "This server does not answer for the host '" + abridge(r.Host) + "': use its IP address or localhost, or allow the name."}
}

// checkOrigin refuses a request that a page of another origin sent, and lets one of an allowed origin read the answer.
func (g *Gateway) checkOrigin(w http.ResponseWriter, r *http.Request) *problem {
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || sameOrigin(origin, r.Host) {
		return nil
	}
	if !slices.Contains(g.cfg.AllowedOrigins, "*") &&
		!slices.ContainsFunc(g.cfg.AllowedOrigins, func(allowed string) bool { return strings.EqualFold(allowed, origin) }) {
		return &problem{status: http.StatusForbidden, kind: kindRequest, code: "origin_not_allowed",
			message: "Pages of the origin '" + abridge(origin) + "' may not use this server: allow the origin to change that."}
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "Retry-After, X-Request-Id, X-Trace-Id")
	return nil
}

// preflight answers the question that a browser asks before a request of another origin, which checkOrigin has let pass.
func preflight(w http.ResponseWriter, r *http.Request, methods string) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", methods)
	if wanted := r.Header.Get("Access-Control-Request-Headers"); wanted != "" {
		h.Set("Access-Control-Allow-Headers", wanted)
	}
	if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}

// sameOrigin compares an Origin with the request's Host. The scheme is left out: a proxy may have ended TLS.
func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

// hostName is a Host without port and brackets.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// isLocalName: browsers resolve these to loopback themselves, without asking DNS.
func isLocalName(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
