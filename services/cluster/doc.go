// Package cluster turns gossip into rosters: each process says of itself what a planner must know, and hears it of all
// others. cmd wires it to the coordinator and the shard, which see nothing but plan.Roster; memberlist stays in here.
//
// A process has one port. Listen opens it for TCP and UDP alike, and the Port tells gossip from everything else by the
// first byte of a connection: HTTP/1, HTTP/2 and TLS go to its Listener. So the address that one process prints is the
// address that the next one joins.
//
//	port, err := cluster.Listen("127.0.0.1:7000")
//	c, err := cluster.New(cluster.Config{Self: self, Port: port, Join: seeds, Log: log})
//	g.Go(func() error { return c.Run(ctx) })
//	g.Go(func() error { return server.Serve(port.Listener()) })
//	for roster := range c.Watch(ctx) { ... }
//
// Invariants: New starts nothing, and what Run starts ends with it. A roster is sorted by name, contains this process,
// and is never changed once it is given out. What peers send is checked before it is believed: members with names,
// addresses or metadata that none of ours could have are refused, as are members of a cluster with another label or
// key.
//
// Gossip says who is there and what they offer. It is slow to give up on a member, on purpose: work in flight has its
// own, faster detection.
package cluster
