package swarm

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// unsentBytes bounds what waits in the kernel unsent on one link (TCP_NOTSENT_LOWAT, tcp(7)), so that a short message
// written behind it is not late. At 100 Mbit/s a message arrives after 270 ms without it, 40 ms with it; 128 KiB
// would make that 30 ms, for some 3 % of the processor time of a link as fast as the processor more.
const unsentBytes = 256 << 10

func (t Transport) checkSystem() error { return nil }

// prepare sets the options of a socket. Only a device that it cannot be bound to is an error worth a connection.
func (t Transport) prepare(device string, c syscall.RawConn) (err error) {
	failed := c.Control(func(fd uintptr) { err = t.set(int(fd), device) })
	if err == nil {
		err = failed
	}
	return err
}

func (t Transport) set(fd int, device string) error {
	if device != "" {
		if err := unix.BindToDevice(fd, device); err != nil {
			return fmt.Errorf("bind to interface %s: %w", device, err)
		}
	}
	_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, t.congestion()) // read back where it counts
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
	if t.DSCP == 0 {
		return nil
	}
	// The mark is the upper six bits (RFC 2474 §3); the kernel keeps the lower two, which are ECN's. A socket of IPv6 may
	// carry IPv4 and has both options then.
	tos := t.DSCP << 2
	v4 := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, tos)
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && domain == unix.AF_INET6 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tos)
	}
	return v4
}

// congestionOf returns the name of the congestion control of a connection.
func congestionOf(c syscall.RawConn) (name string) {
	_ = c.Control(func(fd uintptr) { name, _ = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION) })
	return name
}
