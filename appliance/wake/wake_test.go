package wake

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestPacket(t *testing.T) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 0x10}
	p, err := Packet(mac)
	if err != nil || len(p) != 102 || !bytes.Equal(p[:6], []byte{255, 255, 255, 255, 255, 255}) {
		t.Fatalf("% x, %v", p, err)
	}
	for i := 6; i < len(p); i += 6 {
		if !bytes.Equal(p[i:i+6], mac) {
			t.Fatalf("% x at %d", p[i:i+6], i)
		}
	}
	if _, err := Packet(net.HardwareAddr{1, 2, 3, 4, 5, 6, 7, 8}); err == nil {
		t.Error("an InfiniBand address is woken")
	}
}

func TestLastOf(t *testing.T) {
	for network, want := range map[string]string{"10.1.2.7/24": "10.1.2.255", "10.1.2.7/16": "10.1.255.255", "10.1.2.130/25": "10.1.2.255", "10.1.2.7/30": "10.1.2.7", "10.0.0.1/8": "10.255.255.255"} {
		if got := lastOf(netip.MustParsePrefix(network)); got.String() != want {
			t.Errorf("%s: %s, want %s", network, got, want)
		}
	}
}

// TestSend hears the packet at the end of the loopback network.
func TestSend(t *testing.T) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 0x10}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: Port})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := Send(mac, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, ""); err != nil {
		t.Fatal(err)
	}
	want, _ := Packet(mac)
	got := make([]byte, 200)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, _, err := c.ReadFrom(got)
	if err != nil || !bytes.Equal(got[:n], want) {
		t.Fatalf("% x, %v", got[:n], err)
	}
	if err := Send(mac, nil, "no-such-nic"); err == nil {
		t.Error("sent by an interface that is not there")
	}
}
