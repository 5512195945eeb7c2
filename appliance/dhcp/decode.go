package dhcp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// errForeign says that a packet is none of ours: an operating system asking for an address, another server's answer.
var errForeign = errors.New("not from a machine that boots from the network")

// Decode reads one packet as it came to port on the appliance's address local, from source. It returns errForeign
// (wrapped) for the traffic of others and a reasoned error for broken packets. It keeps nothing of b.
func Decode(b []byte, port int, source, local netip.Addr) (Request, *dhcpv4.DHCPv4, error) {
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		return Request{}, nil, fmt.Errorf("packet of %d bytes: %w", len(b), err)
	}
	if m.OpCode != dhcpv4.OpcodeBootRequest {
		return Request{}, nil, fmt.Errorf("a server's answer: %w", errForeign)
	}
	class := m.ClassIdentifier()
	pxe, http := strings.HasPrefix(class, classPXE), strings.HasPrefix(class, classHTTP)
	agent := class == classAgent
	if !pxe && !http && !agent {
		return Request{}, nil, fmt.Errorf("class %q: %w", class, errForeign)
	}
	if m.HWType != iana.HWTypeEthernet || len(m.ClientHWAddr) != 6 {
		return Request{}, nil, fmt.Errorf("hardware address of type %s with %d bytes, want Ethernet", m.HWType, len(m.ClientHWAddr))
	}
	r := Request{
		Type:  m.MessageType(),
		Port:  port,
		MAC:   [6]byte(m.ClientHWAddr),
		UUID:  uuidOf(m),
		Arch:  archOf(m),
		Class: printable(class),
		HTTP:  http,
		IPXE:  isIPXE(m),
		Relay: addrOf(m.GatewayIPAddr),
		Local: local,
	}
	switch r.Type {
	case dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeInform:
	default:
		return Request{}, nil, fmt.Errorf("message type %s: %w", r.Type, errForeign)
	}
	r.Addr = firstValid(addrOf(m.ClientIPAddr), addrOf(m.RequestedIPAddress()))
	if port == PortProxy && !r.Addr.IsValid() {
		r.Addr = firstValid(source)
	}
	r.Agent, r.Told = agent, agent || told(m, r)
	return r, m, nil
}

// told reports whether the packet belongs to the machine's talk with its DHCP server. On port 67 that is every REQUEST
// and INFORM which does not name the appliance as its server (RFC 2131 §4.3.2).
func told(m *dhcpv4.DHCPv4, r Request) bool {
	if r.Port == PortProxy || r.Type == dhcpv4.MessageTypeDiscover {
		return false
	}
	return addrOf(m.ServerIdentifier()) != r.Local
}

// isIPXE recognises iPXE by its user class or by its encapsulated options; both, since either may be configured away.
func isIPXE(m *dhcpv4.DHCPv4) bool {
	if m.Options.Has(optionIPXE) {
		return true
	}
	// iPXE sends the bare word; others wrap it in a length byte as RFC 3004 §4 wants.
	u := m.GetOneOption(dhcpv4.OptionUserClassInformation)
	return bytes.Equal(u, []byte("iPXE")) || bytes.Equal(u, []byte("\x04iPXE"))
}

// uuidOf returns option 97 as Linux prints it: type 0 and 16 bytes, the first three fields little-endian (SMBIOS 2.6).
func uuidOf(m *dhcpv4.DHCPv4) string {
	b := m.GetOneOption(dhcpv4.OptionClientMachineIdentifier)
	if len(b) != 17 || b[0] != 0 {
		return ""
	}
	u := b[1:]
	return fmt.Sprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%x-%x",
		u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8:10], u[10:16])
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4())
	return firstValid(a)
}

// firstValid returns the first address that can be a host's; invalid when there is none.
func firstValid(addrs ...netip.Addr) netip.Addr {
	for _, a := range addrs {
		if a.IsValid() && !a.IsUnspecified() {
			return a.Unmap()
		}
	}
	return netip.Addr{}
}

// printable bounds what a machine said of itself for logs and consoles: 64 characters, no control bytes.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), 64)]
}
