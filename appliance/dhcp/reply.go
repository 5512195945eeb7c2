package dhcp

import (
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Reply builds the packet that answers m, or nil when there is nothing to say. It changes nothing of m.
func Reply(m *dhcpv4.DHCPv4, r Request, a Answer) (*dhcpv4.DHCPv4, error) {
	if a.File == "" || r.Told {
		return nil, nil
	}
	local := net.IP(r.Local.AsSlice())
	reply, err := dhcpv4.NewReplyFromRequest(m,
		dhcpv4.WithMessageType(answerType(r)),
		dhcpv4.WithServerIP(local),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(local)),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(class(r))),
	)
	if err != nil {
		return nil, err
	}
	// The proxy hands out no address; at 4011 the machine's own goes back (PXE 2.1 table 2-6).
	reply.YourIPAddr = net.IPv4zero
	if r.Port == PortProxy {
		reply.ClientIPAddr = m.ClientIPAddr
	}
	if id := m.GetOneOption(dhcpv4.OptionClientMachineIdentifier); id != nil {
		reply.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, id)) // RFC 4578 §2.3
	}
	setFile(reply, r, a.File)
	if v := vendorOptions(m, r); v != nil {
		reply.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, v))
	}
	return reply, nil
}

// answerType is OFFER for a DISCOVER and ACK for everything else (PXE 2.1 §2.2.3).
func answerType(r Request) dhcpv4.MessageType {
	if r.Type == dhcpv4.MessageTypeDiscover {
		return dhcpv4.MessageTypeOffer
	}
	return dhcpv4.MessageTypeAck
}

// class returns what the machine wants to read in option 60 before it takes the answer for a proxy's.
func class(r Request) string {
	if r.HTTP {
		return classHTTP
	}
	return classPXE
}

// maxFile is the room in the BOOTP file field, with its closing zero (RFC 951 §3).
const maxFile = 128

// setFile names the file in the BOOTP field, which every machine reads, and in option 67 for URLs, which may be longer
// and which HTTP firmware reads there (UEFI 2.10 §24.7.3.2).
func setFile(reply *dhcpv4.DHCPv4, r Request, file string) {
	if len(file) < maxFile {
		reply.BootFileName = file
	}
	if r.HTTP || r.IPXE || len(file) >= maxFile {
		reply.UpdateOption(dhcpv4.OptBootFileName(file))
	}
	if !r.HTTP {
		reply.ServerHostName = r.Local.String()
	}
}

// Destination says where the answer to a packet from source goes, and whether it is a broadcast on the wire of the
// packet. RFC 2131 §4.1, without its unicast to an address that is not configured yet.
func Destination(m *dhcpv4.DHCPv4, r Request, source netip.AddrPort) (to netip.AddrPort, broadcast bool) {
	switch {
	case r.Port == PortProxy:
		return source, false
	case r.Relay.IsValid():
		return netip.AddrPortFrom(r.Relay, PortServer), false
	case addrOf(m.ClientIPAddr).IsValid() && !m.IsBroadcast():
		return netip.AddrPortFrom(addrOf(m.ClientIPAddr), PortClient), false
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), PortClient), true
}
