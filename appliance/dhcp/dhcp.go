// Package dhcp is a proxy-DHCP server (PXE 2.1 §2.2.3): it tells machines that boot from the network which file to load
// and never hands out addresses, so that it lives beside the DHCP server that is already there.
//
// It answers on ports 67 and 4011. What a machine gets is decided by an Answerer; this package knows packets only.
package dhcp

import (
	"context"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Ports of the protocol.
const (
	PortServer = 67   // RFC 2131 §4.1
	PortClient = 68   // RFC 2131 §4.1
	PortProxy  = 4011 // PXE 2.1 §2.2.3
)

// Request is what one packet of a machine that boots from the network says.
type Request struct {
	// Type is DISCOVER, REQUEST or INFORM.
	Type dhcpv4.MessageType
	// Port is the port that the packet came to: 67 or 4011.
	Port int
	MAC  [6]byte
	// UUID is the client machine identifier (RFC 4578 §2.3), as Linux prints the SMBIOS UUID; empty if none came.
	UUID string
	// Arch is the first client system architecture of option 93; 0 (BIOS) if none came, as old cards do.
	Arch uint16
	// Class is option 60 as sent: "PXEClient:Arch:00007:UNDI:003001".
	Class string
	// HTTP is true for firmware that boots from HTTP and wants URLs: Class begins with "HTTPClient".
	HTTP bool
	// IPXE is true when iPXE sent the packet: user class "iPXE" (option 77) or encapsulated options (175).
	IPXE bool
	// Addr is the address that the machine has or asks its DHCP server for; invalid if the packet tells none.
	Addr netip.Addr
	// Relay is the relay agent that forwarded the packet (giaddr); invalid if none did.
	Relay netip.Addr
	// Local is the appliance's address towards the machine, as files should name it.
	Local netip.Addr
	// Told is true when the packet is between the machine and its DHCP server: it may be noted, it is not answered.
	Told bool
	// Agent is true when the agent's own kernel sent the packet, which is Told too: it has booted.
	Agent bool
}

// Answer is what a machine gets.
type Answer struct {
	// File is a TFTP path ("525400770010/shimx64.efi") or, for iPXE and HTTP firmware, a URL. Empty: no answer.
	File string
}

// Answerer decides. It is called on a goroutine of its own for each packet, many at a time; a slow answer comes too
// late for the machine, which repeats its question.
type Answerer func(ctx context.Context, r Request) Answer

// Class identifiers, by their beginnings (PXE 2.1 §2.2.1, UEFI 2.10 §24.7.3.1).
const (
	classPXE  = "PXEClient"
	classHTTP = "HTTPClient"
	// classAgent is what the agent's kernel sends, see package network.
	classAgent = "seedbed-agent"
)

// Vendor options inside option 43 (PXE 2.1 table 2-1).
const (
	pxeDiscoveryControl = 6  // one byte of flags
	pxeBootItem         = 71 // boot server type and layer
	// discoveryBypass makes the client load the file of this very packet, without asking for boot servers.
	discoveryBypass = 0x08
)

// optionIPXE holds iPXE's encapsulated options; no other client sends it (RFC 3942: 128-254 reassigned, Etherboot's).
var optionIPXE = dhcpv4.GenericOptionCode(175)

// archOf returns the first architecture of option 93.
func archOf(m *dhcpv4.DHCPv4) uint16 {
	if a := m.ClientArch(); len(a) > 0 {
		return uint16(a[0])
	}
	return uint16(iana.INTEL_X86PC)
}
