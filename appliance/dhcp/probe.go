package dhcp

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/iana"
)

// Offer is what one server answered a machine that boots from the network.
type Offer struct {
	Server netip.Addr `json:"server"` // that names itself, or else from which the answer came
	// Address is offered to the machine; invalid: none is.
	Address netip.Addr `json:"address,omitzero"`
	// PXE says that it tells machines what to boot; File and Next are the name of the file and the host that has it, where it says so.
	PXE  bool   `json:"pxe"`
	File string `json:"file,omitempty"`
	Next string `json:"next,omitempty"`
}

// probeRepeat is how often a question is repeated while answers are waited for: broadcasts are lost, and switches that learn a port take
// their time.
const probeRepeat = time.Second

// Probe asks the network of an interface, as machines with UEFI and with BIOS that boot from it do (PXE 2.1 §2.2.3), and returns who answers
// until ctx ends: two packets a second are sent, from the interface's own MAC, and no address is taken. Programs of this host do not
// hear it. It needs the right to raw sockets.
func Probe(ctx context.Context, iface string) ([]Offer, error) {
	nic, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, err
	}
	conn, err := nclient4.NewRawUDPConn(iface, PortClient)
	if err != nil {
		return nil, fmt.Errorf("open a raw socket on %s, which takes root or CAP_NET_RAW: %w", iface, err)
	}
	defer conn.Close()
	var questions []*dhcpv4.DHCPv4
	for _, kind := range []firmware{{iana.EFI_X86_64, classPXE + ":Arch:00007:UNDI:003001"}, {iana.INTEL_X86PC, classPXE + ":Arch:00000:UNDI:002001"}} {
		q, err := discover(nic.HardwareAddr, kind)
		if err != nil {
			return nil, err
		}
		questions = append(questions, q)
	}
	var list []Offer
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		for _, q := range questions {
			if _, err := conn.WriteTo(q.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: PortServer}); err != nil {
				return list, fmt.Errorf("ask on %s: %w", iface, err)
			}
		}
		until := time.Now().Add(probeRepeat)
		if end, ok := ctx.Deadline(); ok && end.Before(until) {
			until = end
		}
		if err := conn.SetReadDeadline(until); err != nil {
			return list, err
		}
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
					break
				}
				return list, fmt.Errorf("hear who answers on %s: %w", iface, err)
			}
			o, ok := offered(questions, buf[:n], from)
			if ok && !slices.Contains(list, o) {
				list = append(list, o)
			}
		}
	}
	return list, nil
}

// firmware is how one says what it is.
type firmware struct {
	arch  iana.Arch
	class string
}

// discover is the question of a machine that boots from the network.
func discover(mac net.HardwareAddr, kind firmware) (*dhcpv4.DHCPv4, error) {
	var machine [17]byte // type 0 and a UUID (RFC 4578 §2.3), that of no machine
	rand.Read(machine[1:])
	return dhcpv4.NewDiscovery(mac,
		dhcpv4.WithBroadcast(true),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(kind.class)),
		dhcpv4.WithOption(dhcpv4.OptClientArch(kind.arch)),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientNetworkInterfaceIdentifier, []byte{1, 3, 1})), // RFC 4578 §2.2: UNDI 3.1
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, machine[:])),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionVendorSpecificInformation,
			dhcpv4.OptionClassIdentifier, dhcpv4.OptionTFTPServerName, dhcpv4.OptionBootfileName),
	)
}

// offered reads an answer to one of the questions.
func offered(questions []*dhcpv4.DHCPv4, packet []byte, from net.Addr) (Offer, bool) {
	m, err := dhcpv4.FromBytes(packet)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || m.MessageType() != dhcpv4.MessageTypeOffer {
		return Offer{}, false
	}
	if !slices.ContainsFunc(questions, func(q *dhcpv4.DHCPv4) bool { return q.TransactionID == m.TransactionID }) {
		return Offer{}, false
	}
	var o Offer
	if udp, ok := from.(*net.UDPAddr); ok {
		o.Server = udp.AddrPort().Addr().Unmap()
	}
	if server, ok := netip.AddrFromSlice(m.ServerIdentifier().To4()); ok && !server.IsUnspecified() {
		o.Server = server
	}
	if address, ok := netip.AddrFromSlice(m.YourIPAddr.To4()); ok && !address.IsUnspecified() {
		o.Address = address
	}
	o.File = shownName(m.BootFileName)
	if name := m.BootFileNameOption(); name != "" {
		o.File = shownName(name)
	}
	if next, ok := netip.AddrFromSlice(m.ServerIPAddr.To4()); ok && !next.IsUnspecified() {
		o.Next = next.String()
	}
	if name := m.TFTPServerName(); name != "" {
		o.Next = shownName(name)
	}
	class := m.ClassIdentifier()
	o.PXE = strings.HasPrefix(class, classPXE) || strings.HasPrefix(class, classHTTP) || o.File != ""
	return o, true
}

// maxShown bounds a name from the network, in bytes.
const maxShown = 128

// shownName is a name without the zeros that it ends with, of bounded length.
func shownName(name string) string {
	name, _, _ = strings.Cut(name, "\x00")
	return name[:min(len(name), maxShown)]
}
