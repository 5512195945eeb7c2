// Package wake sends the packet that wakes a computer over the network: AMD's "Magic Packet Technology" white paper (20213),
// six bytes of ones and sixteen times the address of the card, in UDP to port 9.
package wake

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// Port is where the packets go (discard, RFC 863): nobody has to listen, the card looks at all it hears.
const Port = 9

// Packet returns the content of the packet that wakes a card.
func Packet(mac net.HardwareAddr) ([]byte, error) {
	if len(mac) != 6 {
		return nil, fmt.Errorf("%s is no Ethernet address", mac)
	}
	return append(bytes.Repeat([]byte{0xff}, 6), bytes.Repeat(mac, 16)...), nil
}

// Send wakes a card: by the broadcast addresses of its networks, which the routers between must let through, or, where none
// are given, in every IPv4 network that this host is in, or the one of the interface. One packet that leaves is enough; the error
// tells of those that did not only if none did.
func Send(mac net.HardwareAddr, to []netip.Addr, nic string) error {
	packet, err := Packet(mac)
	if err != nil {
		return err
	}
	if len(to) == 0 {
		if to, err = Broadcasts(nic); err != nil {
			return err
		}
	}
	var failed []error
	sent := false
	for _, a := range to {
		if err := send(packet, netip.AddrPortFrom(a, Port)); err != nil {
			failed = append(failed, fmt.Errorf("send to %s: %w", a, err))
			continue
		}
		sent = true
	}
	switch {
	case sent:
		return nil
	case len(failed) == 0:
		return errors.New("no network of this host has a broadcast address; give the group of the machine one")
	}
	return errors.Join(failed...)
}

func send(packet []byte, to netip.AddrPort) error {
	c, err := net.ListenPacket("udp4", ":0") // Go lets every UDP socket broadcast
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.WriteTo(packet, net.UDPAddrFromAddrPort(to))
	return err
}

// Broadcasts returns the broadcast addresses of the networks that this host is in, or of those of one interface.
func Broadcasts(nic string) (list []netip.Addr, err error) {
	nics, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("look for the networks of this host: %w", err)
	}
	for _, n := range nics {
		if nic != "" && n.Name != nic || n.Flags&net.FlagUp == 0 || n.Flags&net.FlagBroadcast == 0 {
			continue
		}
		addrs, err := n.Addrs()
		if err != nil {
			return nil, fmt.Errorf("look for the addresses of %s: %w", n.Name, err)
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil || !p.Addr().Is4() || p.Bits() > 30 {
				continue
			}
			if last := lastOf(p); !slices.Contains(list, last) {
				list = append(list, last)
			}
		}
	}
	return list, nil
}

// lastOf returns the broadcast address of a network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}
