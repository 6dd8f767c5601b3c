//go:build linux

// Package lab makes machines out of one: each has a network of its own, with an address, a link of a given rate and delay that can be broken in
// every way, and a limit to its memory and CPU; any program runs in it. It is for trying what needs several machines, and for tests of it. It needs root.
//
//	l, err := lab.Up(lab.Config{Machines: []lab.MachineConfig{{Name: "a"}, {Name: "b", Memory: 1 << 30, CPU: 0.4, Rate: 1e9}}})
//	defer l.Down()
//	a, b := l.Machine("a"), l.Machine("b")
//	p, err := b.Start(exec.Command("daisy", "shard", "--join", a.Addr.String()+":8080"))
//	l.Change(nil, nil, func(link *wire.Link) { link.Delay = 5 * time.Millisecond })
//	l.Partition([]*lab.Machine{a}, []*lab.Machine{b})
//	l.Heal()
//	b.Signal(syscall.SIGSTOP)
//
// A machine is a network namespace without a name: it has a loopback and one TUN device, whose other end is the lab's wire (package wire). So the
// host's network is neither touched nor reachable, and the kernel takes namespaces and devices away with the process that made them, however it
// ends; processes go with it too. What the kernel would leave is written down before it is made, in Config.Dir: the cgroups (package cgroup), a
// folder on disk per machine, and processes that those started in a machine have left there. Down removes it, or else the next Up or Clean, which
// finds that the lock of that lab is free.
//
// Its invariant: it touches only what it made. It refuses to work without root, and limits that this machine cannot keep.
//
// What it is not: a machine has the files, the clock and the process numbers of the host, and the wire carries IPv4 only. The file
// cache is charged to the machine that reads a file first: give each machine a copy of its own (Machine.Copy) where that matters.
package lab
