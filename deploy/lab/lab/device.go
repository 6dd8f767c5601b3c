//go:build linux

package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	deviceName = "eth0"
	prefixBits = 24
)

// openDevice makes a machine's link to the wire, in the network namespace of the thread that calls it: the machine's end is an interface
// with an address, ours a file. The interface ends when the file is closed.
func openDevice(addr netip.Addr, rate int64) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w: load the module tun, or mknod /dev/net/tun c 10 200", err)
	}
	if err := configure(fd, addr, rate); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil // not before: only a configured device can be polled
}

func configure(fd int, addr netip.Addr, rate int64) error {
	request, err := unix.NewIfreq(deviceName)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("make a TUN device: %w", err)
	}
	// Checksums and segments are left to the wire, which leaves them to the receiver: what goes from kernel to kernel breaks nothing.
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4); err != nil {
		return fmt.Errorf("set up the TUN device: %w", err)
	}
	network, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("speak to the kernel's network: %w", err)
	}
	defer network.Close()
	loopback, err := network.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback: %w", err)
	}
	if err := network.LinkSetUp(loopback); err != nil {
		return fmt.Errorf("bring the loopback up: %w", err)
	}
	link, err := network.LinkByName(deviceName)
	if err != nil {
		return fmt.Errorf("find the TUN device: %w", err)
	}
	mask := net.CIDRMask(prefixBits, 32)
	if err := network.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: mask}}); err != nil {
		return fmt.Errorf("give the TUN device the address %v: %w", addr, err)
	}
	if rate != 0 {
		if err := network.QdiscReplace(tokenBucket(link, rate)); err != nil {
			return fmt.Errorf("limit the TUN device to %d bits a second: %w", rate, err)
		}
	}
	if err := network.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring the TUN device up: %w", err)
	}
	return nil
}

// tokenBucket limits what the machine sends; what it receives is limited by the wire. The bucket holds 2 ms, and always enough for a few packets;
// up to 50 ms wait for it.
func tokenBucket(link netlink.Link, rate int64) *netlink.Tbf {
	bytes := uint64(rate) / 8
	bucket := max(bytes/500, 8<<10)
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       bytes,
		Buffer:     netlink.Xmittime(bytes, uint32(bucket)),
		Limit:      uint32(bucket + max(bytes/20, 64<<10)),
	}
}
