package wake

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// plant is an appliance in two VLANs, with a third one behind a router that lets directed broadcasts through. Each is a network of its
// own, as it is at the ports of a switch.
type plant struct {
	*testing.T
	appliance, router, stations string      // names of the namespaces
	ears                        map[int]int // packet sockets by VLAN
}

func (p *plant) sh(line string) {
	p.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		p.Fatalf("%s: %v: %s", line, err, out)
	}
}

func newPlant(t *testing.T) *plant {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Fatal("ip is missing: apt-get install iproute2")
	}
	name := func(of string) string { return fmt.Sprintf("sbwk%s%d", of, os.Getpid()) }
	p := &plant{T: t, appliance: name("a"), router: name("r"), stations: name("s"), ears: map[int]int{}}
	for _, ns := range []string{p.appliance, p.router, p.stations} {
		p.sh("ip netns add " + ns)
		t.Cleanup(func() { p.sh("ip netns del " + ns) })
	}
	link := func(from, nic, address, to, other string) {
		p.sh(fmt.Sprintf("ip -n %s link add %s type veth peer name %s netns %s", from, nic, other, to))
		p.sh(fmt.Sprintf("ip -n %s addr add %s dev %s", from, address, nic))
		p.sh(fmt.Sprintf("ip -n %s link set %s up", from, nic))
		p.sh(fmt.Sprintf("ip -n %s link set %s up", to, other))
	}
	link(p.appliance, "vlan10", "10.10.10.1/24", p.stations, "port10")
	link(p.appliance, "vlan20", "10.10.20.1/25", p.stations, "port20")
	link(p.appliance, "uplink", "10.10.0.1/24", p.router, "wan0")
	link(p.router, "vlan30", "10.10.30.1/24", p.stations, "port30")
	p.sh("ip -n " + p.router + " addr add 10.10.0.2/24 dev wan0")
	p.sh("ip -n " + p.appliance + " route add 10.10.30.0/24 via 10.10.0.2")
	p.sh("ip netns exec " + p.router + " sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.all.bc_forwarding=1 net.ipv4.conf.wan0.bc_forwarding=1")
	for _, vlan := range []int{10, 20, 30} {
		p.ears[vlan] = p.listen(fmt.Sprint("port", vlan))
	}
	return p
}

// within runs fn in a namespace.
func (p *plant) within(ns string, fn func() error) {
	p.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		f, err := os.Open("/run/netns/" + ns)
		if err == nil {
			defer f.Close()
			if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err == nil {
				err = fn()
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		p.Fatal(err)
	}
}

// listen opens what hears all IPv4 packets that come in at a card of the stations.
func (p *plant) listen(nic string) (socket int) {
	p.Helper()
	p.within(p.stations, func() (err error) {
		card, err := net.InterfaceByName(nic)
		if err != nil {
			return err
		}
		ip := uint16(unix.ETH_P_IP<<8&0xff00 | unix.ETH_P_IP>>8) // in network order
		if socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(ip)); err != nil {
			return err
		}
		if err = unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
			return err
		}
		return unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: ip, Ifindex: card.Index})
	})
	p.Cleanup(func() { unix.Close(socket) })
	return socket
}

// next returns whom the next packet of a VLAN wakes, and to which address it went.
func (p *plant) next(vlan int) (mac net.HardwareAddr, to netip.Addr) {
	p.Helper()
	frame := make([]byte, 2048)
	n, _, err := unix.Recvfrom(p.ears[vlan], frame, 0)
	if err != nil {
		p.Fatalf("VLAN %d hears nothing: %v", vlan, err)
	}
	frame = frame[:n]
	if n < 14+20+8+102 {
		p.Fatalf("VLAN %d hears % x", vlan, frame)
	}
	packet, datagram, content := frame[14:34], frame[34:42], frame[42:144]
	mac = slices.Clone(content[6:12])
	want, err := Packet(mac)
	if err != nil || !bytes.Equal(content, want) || !bytes.Equal(frame[:6], bytes.Repeat([]byte{0xff}, 6)) || packet[0] != 0x45 || packet[9] != unix.IPPROTO_UDP ||
		binary.BigEndian.Uint16(datagram[2:]) != Port {
		p.Fatalf("VLAN %d hears % x", vlan, frame)
	}
	return mac, netip.AddrFrom4([4]byte(packet[16:20]))
}

// TestThePacketIsHeardInTheVLANItIsMeantFor looks at the wires: by the broadcast address of a group it is that VLAN alone, also behind a
// router; without one each VLAN that the appliance is in.
func TestThePacketIsHeardInTheVLANItIsMeantFor(t *testing.T) {
	p := newPlant(t)
	last := map[int]netip.Addr{10: netip.MustParseAddr("10.10.10.255"), 20: netip.MustParseAddr("10.10.20.127"), 30: netip.MustParseAddr("10.10.30.255")}
	card, end := net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 0x10}, net.HardwareAddr{2, 0, 0, 0, 0, 0xee}
	for what, c := range map[string]struct {
		to   []netip.Addr
		nic  string
		want []int
	}{
		"no address":                      {nil, "", []int{10, 20}},
		"no address, one interface":       {nil, "vlan20", []int{20}},
		"one VLAN":                        {[]netip.Addr{last[10]}, "", []int{10}},
		"the other VLAN":                  {[]netip.Addr{last[20]}, "", []int{20}},
		"behind the router":               {[]netip.Addr{last[30]}, "", []int{30}},
		"a machine of two groups":         {[]netip.Addr{last[20], last[30]}, "", []int{20, 30}},
		"an address that leads nowhere":   {[]netip.Addr{netip.MustParseAddr("10.99.0.255"), last[10]}, "", []int{10}},
		"a network of one, as by mistake": {[]netip.Addr{netip.MustParseAddr("10.10.20.255"), last[10]}, "", []int{10}},
	} {
		p.within(p.appliance, func() error {
			if err := Send(card, c.to, c.nic); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return Send(end, slices.Collect(maps.Values(last)), "") // a wire keeps the order
		})
		for _, vlan := range []int{10, 20, 30} {
			mac, to := p.next(vlan)
			heard := mac.String() == card.String()
			if heard != slices.Contains(c.want, vlan) || to != last[vlan] {
				t.Errorf("%s: VLAN %d hears %s, sent to %s", what, vlan, mac, to)
			}
			if heard {
				mac, _ = p.next(vlan)
			}
			if mac.String() != end.String() {
				t.Fatalf("%s: VLAN %d hears %s again", what, vlan, mac)
			}
		}
	}
}
