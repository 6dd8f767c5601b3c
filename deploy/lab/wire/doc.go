//go:build linux

// Package wire joins machines by links that are as slow, as far and as faulty as they are told to be.
//
// A Wire owns what happens to a packet between the device of one machine and that of another: it is delayed, dropped, doubled, overtaken, or
// held back until the receiver's line is free. The lab calls it. Its invariant: unless a link is told to reorder, packets of one machine
// reach another in the order in which they were sent, even while the delay changes. It refuses nothing: what has no destination is dropped
// and counted, as a switch does.
//
// A packet is what a TUN device with a virtio header gives: the header, which goes from kernel to kernel as it is, and an IPv4 packet of up to 64 KiB
// (TCP is cut into segments only where a real network card would do it, so that a fast link costs little). Loss, doubling and
// reordering therefore strike up to 64 KiB of a stream at once.
package wire
