// Package trust decides who belongs to a cluster. An Authority, on the disk of one coordinator, vouches for its members
// with short-lived certificates; an Identity is one member's key and certificate, and makes the TLS configurations of its
// connections; a Token lets a new process become a member.
//
//	authority, err := trust.OpenAuthority(dir, trust.AuthorityConfig{Log: log})
//	token, err := authority.CreateToken(plan.Shard, 24*time.Hour)
//	self, err := authority.Identity("c1", hosts)             // the coordinator's own
//	http.Serve(tls.NewListener(l, self.Anyone()), authority.Handler(api))
//
//	self, err := trust.Enter(ctx, trust.MemberConfig{Token: token, Join: addresses, Dir: dir, Log: log}) // a shard's
//	g.Go(func() error { return self.Run(ctx, coordinators) })     // renews
//	rpc.Secure(self.Members(), self.Dial)
//
// Invariants. Nothing is trusted on first use: a token names its authority by fingerprint, and its secret is sent to nobody
// else. A private key never leaves the process, or the folder, that made it. What a member may do is in its certificate: the
// role comes from the token or from the certificate before, never from what a process says of itself. A request for a
// certificate is bound to the connection on which it is sent. Of tokens, the authority keeps only hashes.
//
// Refused are certificates of another authority, or out of date, or for another role or name than expected; tokens that are
// unknown, expired or revoked; requests for certificates that are too long, of other key types than ours, or with names
// that no member could have.
//
// cmd wires it to services/rpc and services/cluster; nothing here knows what the connections carry.
package trust
