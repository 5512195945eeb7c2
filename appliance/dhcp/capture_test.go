package dhcp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The address of the appliance in the lab where the packets were captured.
var lab = netip.MustParseAddr("10.77.0.1")

// capture is one packet of real firmware: testdata/NAME.hex, two lines of comment and the UDP payload.
type capture struct {
	name     string
	comment  string
	source   netip.AddrPort
	port     int
	payload  []byte
	filename string
}

func readCapture(t testing.TB, path string) capture {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := capture{name: strings.TrimSuffix(filepath.Base(path), ".hex"), filename: path}
	var digits strings.Builder
	for line := range strings.Lines(string(b)) {
		text, isComment := strings.CutPrefix(strings.TrimSpace(line), "# ")
		from, isAddress := strings.CutPrefix(text, "from ")
		switch {
		case isComment && isAddress:
			source, to, _ := strings.Cut(from, " to ")
			c.source = netip.MustParseAddrPort(source)
			_, port, _ := strings.Cut(to, ":")
			if c.port, err = strconv.Atoi(port); err != nil {
				t.Fatal(err)
			}
		case isComment:
			c.comment = text
		default:
			digits.WriteString(text)
		}
	}
	if c.payload, err = hex.DecodeString(digits.String()); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return c
}

func captures(t testing.TB) []capture {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no captures in testdata: %v", err)
	}
	var all []capture
	for _, p := range paths {
		all = append(all, readCapture(t, p))
	}
	return all
}

// answerLikeBoot stands in for the boot package: each kind of client gets the kind of file that it would get.
func answerLikeBoot(r Request) Answer {
	switch {
	case r.IPXE:
		return Answer{File: fmt.Sprintf("http://%s/boot.ipxe?mac=%s", r.Local, mac(r))}
	case r.HTTP:
		return Answer{File: fmt.Sprintf("http://%s/%x/shimx64.efi", r.Local, r.MAC)}
	case r.Arch == 0:
		return Answer{File: fmt.Sprintf("%x/undionly.kpxe", r.MAC)}
	}
	return Answer{File: fmt.Sprintf("%x/shimx64.efi", r.MAC)}
}

func mac(r Request) string {
	return strings.TrimSuffix(strings.ReplaceAll(fmt.Sprintf("% x ", r.MAC), " ", ":"), ":")
}

// describe renders what the server makes of a packet.
func describe(c capture) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nfrom %s to port %d\n\n", c.comment, c.source, c.port)
	r, m, err := Decode(c.payload, c.port, c.source.Addr(), lab)
	if err != nil {
		fmt.Fprintf(&b, "not answered: %v\n", err)
		return b.String()
	}
	fmt.Fprintf(&b, "type %s\nmac %s\nuuid %s\narch %d\nclass %s\nhttp %t\nipxe %t\naddr %s\nrelay %s\ntold %t\n",
		r.Type, mac(r), r.UUID, r.Arch, r.Class, r.HTTP, r.IPXE, r.Addr, r.Relay, r.Told)
	reply, err := Reply(m, r, answerLikeBoot(r))
	if err != nil {
		fmt.Fprintf(&b, "\nno answer: %v\n", err)
		return b.String()
	}
	if reply == nil {
		b.WriteString("\nno answer: the packet is for the DHCP server\n")
		return b.String()
	}
	to, broadcast := Destination(m, r, c.source)
	// What the machine reads is what comes out of the bytes, not what went in.
	wire, err := dhcpv4.FromBytes(reply.ToBytes())
	if err != nil {
		fmt.Fprintf(&b, "\nthe answer does not parse: %v\n", err)
		return b.String()
	}
	fmt.Fprintf(&b, "\nanswer to %s, broadcast %t\n%s", to, broadcast, wire.Summary())
	return b.String()
}

func TestCapturesOfRealFirmware(t *testing.T) {
	for _, c := range captures(t) {
		t.Run(c.name, func(t *testing.T) {
			golden := strings.TrimSuffix(c.filename, ".hex") + ".golden"
			got := describe(c)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s (rewrite with -update):\n%s", golden, got)
			}
		})
	}
}

// Secure Boot cannot be seen in a packet: that is why unknown machines get shim.
func TestSecureBootDoesNotShowInAPacket(t *testing.T) {
	off := readCapture(t, "testdata/ovmf-pxe-discover.hex").payload
	on := readCapture(t, "testdata/ovmf-secureboot-pxe-discover.hex").payload
	// The transaction ID and the seconds are of the moment (RFC 2131 §2).
	clear(off[4:10])
	clear(on[4:10])
	if !bytes.Equal(off, on) {
		t.Error("firmware with Secure Boot on sends another DISCOVER than firmware with it off: it can be told apart after all")
	}
}

func TestForeignTrafficIsToldApartFromBrokenPackets(t *testing.T) {
	offer := readCapture(t, "testdata/dnsmasq-offer.hex")
	if _, _, err := Decode(offer.payload, PortServer, offer.source.Addr(), lab); !errors.Is(err, errForeign) {
		t.Errorf("another server's OFFER: %v, want foreign", err)
	}
	system, err := dhcpv4.NewDiscovery([]byte{2, 0, 0, 0, 0, 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Decode(system.ToBytes(), PortServer, netip.IPv4Unspecified(), lab); !errors.Is(err, errForeign) {
		t.Errorf("an operating system's DISCOVER: %v, want foreign", err)
	}
	if _, _, err := Decode(offer.payload[:100], PortServer, offer.source.Addr(), lab); err == nil || errors.Is(err, errForeign) {
		t.Errorf("a cut packet: %v, want a reason", err)
	}
}

func TestUserClassAloneMarksIPXE(t *testing.T) {
	for _, class := range []string{"iPXE", "\x04iPXE"} {
		m, err := dhcpv4.NewDiscovery([]byte{2, 0, 0, 0, 0, 1},
			dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
			dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte(class))))
		if err != nil {
			t.Fatal(err)
		}
		if r, _, err := Decode(m.ToBytes(), PortServer, netip.Addr{}, lab); err != nil || !r.IPXE {
			t.Errorf("user class %q: iPXE %t, error %v", class, r.IPXE, err)
		}
	}
}

// A relayed question is answered to the relay, with its own option given back (RFC 3046 §2.2), never by broadcast.
func TestRelayedQuestionIsAnsweredToTheRelay(t *testing.T) {
	c := readCapture(t, "testdata/ovmf-pxe-discover.hex")
	m, err := dhcpv4.FromBytes(c.payload)
	if err != nil {
		t.Fatal(err)
	}
	m.GatewayIPAddr = []byte{10, 78, 0, 1}
	m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, []byte{1, 3, 'g', 'e', '7'}))
	r, decoded, err := Decode(m.ToBytes(), PortServer, netip.MustParseAddr("10.78.0.1"), lab)
	if err != nil {
		t.Fatal(err)
	}
	to, broadcast := Destination(decoded, r, netip.MustParseAddrPort("10.78.0.1:67"))
	if to != netip.MustParseAddrPort("10.78.0.1:67") || broadcast {
		t.Errorf("answer goes to %s, broadcast %t, want the relay", to, broadcast)
	}
	reply, err := Reply(decoded, r, Answer{File: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if got := reply.GetOneOption(dhcpv4.OptionRelayAgentInformation); string(got) != "\x01\x03ge7" {
		t.Errorf("relay agent information in the answer is %q", got)
	}
	if !reply.GatewayIPAddr.Equal([]byte{10, 78, 0, 1}) {
		t.Errorf("giaddr in the answer is %s", reply.GatewayIPAddr)
	}
}

// The boot item that a card names comes back, followed by discovery control for BIOS.
func TestBootItemComesBack(t *testing.T) {
	m, err := dhcpv4.NewDiscovery([]byte{2, 0, 0, 0, 0, 1},
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, []byte{0, 71, 4, 0, 1, 0, 0, 255})))
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := Decode(m.ToBytes(), PortServer, netip.Addr{}, lab)
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{71, 4, 0, 1, 0, 0, 6, 1, 8, 255}
	if got := vendorOptions(m, r); !bytes.Equal(got, want) {
		t.Errorf("option 43 is %v, want %v", got, want)
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range captures(f) {
		f.Add(c.payload, c.port)
	}
	f.Fuzz(func(t *testing.T, b []byte, port int) {
		r, m, err := Decode(b, port, lab, lab)
		if err != nil {
			return
		}
		reply, err := Reply(m, r, answerLikeBoot(r))
		if err != nil || reply == nil {
			return
		}
		if _, err := dhcpv4.FromBytes(reply.ToBytes()); err != nil {
			t.Errorf("the answer does not parse: %v", err)
		}
	})
}
