package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"golang.org/x/sys/unix"
)

// openLab makes a lab that is closed at the end of the test.
func openLab(t *testing.T, c Config) *Lab {
	t.Helper()
	c.Dir = t.TempDir()
	l, err := Start(t.Context(), c)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inside calls f on a thread in a network namespace. Sockets that f opens stay there.
func inside(t *testing.T, ns string, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		file, err := os.Open(filepath.Join("/run/netns", ns))
		if err == nil {
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
			file.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	must(t, <-done)
}

// hears opens a UDP port in the appliance's namespace and returns a question: does a datagram of the number that was sent there arrive?
func hears(t *testing.T, l *Lab, port int) func(number int) bool {
	var c *net.UDPConn
	inside(t, l.Namespace(), func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		return err
	})
	t.Cleanup(func() { c.Close() })
	return func(number int) bool {
		b := make([]byte, 64)
		must(t, c.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
		for {
			n, err := c.Read(b)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return false
			}
			must(t, err)
			if string(b[:n]) == fmt.Sprint(number) {
				return true
			}
		}
	}
}

// says sends a number to a UDP port of the appliance from a namespace.
func says(t *testing.T, ns string, port, number int) {
	t.Helper()
	inside(t, ns, func() error {
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ApplianceAddr, uint16(port))))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(fmt.Sprint(number)))
		return err
	})
}

func TestWhatIsBlockedDoesNotArriveAndAllElseDoes(t *testing.T) {
	l := openLab(t, Config{})
	tftp, other := hears(t, l, 69), hears(t, l, 70)
	says(t, l.Servers(), 69, 1)
	if !tftp(1) {
		t.Fatal("a datagram does not arrive though nothing is blocked")
	}
	must(t, l.Block(t.Context(), TFTP))
	says(t, l.Servers(), 69, 2)
	says(t, l.Servers(), 70, 3)
	if tftp(2) {
		t.Error("a datagram arrives at a port that is blocked")
	}
	if !other(3) {
		t.Error("a datagram to another port does not arrive")
	}
	late, err := l.plugAppliance(t.Context())
	must(t, err)
	says(t, late, 69, 4)
	if tftp(4) {
		t.Error("a datagram arrives at a blocked port by a cable that was plugged later")
	}
	if n, err := l.Dropped(t.Context()); err != nil || n != 2 {
		t.Errorf("the switch counts %d frames that it dropped (%v), not 2", n, err)
	}
	must(t, l.Unblock(t.Context()))
	says(t, l.Servers(), 69, 5)
	if !tftp(5) {
		t.Error("a datagram does not arrive after the port is open again")
	}
}

func TestABlockCutsConnectionsThatStand(t *testing.T) {
	l := openLab(t, Config{WithoutDHCP: true})
	var listen net.Listener
	inside(t, l.Namespace(), func() (err error) {
		listen, err = net.Listen("tcp4", ":443")
		return err
	})
	t.Cleanup(func() { listen.Close() })
	dial := func(port uint16) (c net.Conn, err error) {
		inside(t, l.Servers(), func() error {
			c, err = (&net.Dialer{Timeout: time.Second}).Dial("tcp4", netip.AddrPortFrom(ApplianceAddr, port).String())
			return nil
		})
		return c, err
	}
	c, err := dial(443)
	must(t, err)
	defer c.Close()
	far, err := listen.Accept()
	must(t, err)
	defer far.Close()
	must(t, l.Block(t.Context(), Agents))
	_, err = c.Write([]byte("x"))
	must(t, err)
	must(t, far.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("what is sent by a standing connection arrives, or ends it: %v", err)
	}
	if _, err := dial(443); err == nil || !err.(net.Error).Timeout() {
		t.Errorf("a new connection: %v, not silence", err)
	}
	if _, err := dial(80); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("another port: %v, not a refusal by the appliance's host", err)
	}
}

// nic is a machine's network card in the place of QEMU's: it reads and writes frames.
func nic(t *testing.T, m *Machine) *os.File {
	var fd int
	inside(t, m.lab.switchNS(), func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		request, err := unix.NewIfreq(m.tap)
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	})
	f := os.NewFile(uintptr(fd), m.tap)
	t.Cleanup(func() { f.Close() })
	return f
}

// flood sends 100 datagrams of 1,400 bytes to everybody and returns how many bytes of them a card receives.
func flood(t *testing.T, l *Lab, card *os.File) (received int) {
	mark := bytes.Repeat([]byte("flood"), 280)
	inside(t, l.Namespace(), func() error {
		c, err := net.Dial("udp4", "10.77.0.255:9")
		if err != nil {
			return err
		}
		defer c.Close()
		for range 100 {
			if _, err := c.Write(mark); err != nil {
				return err
			}
		}
		return nil
	})
	b := make([]byte, 2048)
	must(t, card.SetReadDeadline(time.Now().Add(time.Second)))
	for {
		n, err := card.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return received
		}
		must(t, err)
		if bytes.HasSuffix(b[:n], mark) {
			received += len(mark)
		}
	}
}

func TestAMachinesCableIsSlowedAndPulled(t *testing.T) {
	l := openLab(t, Config{WithoutDHCP: true})
	m, err := l.Machine(t.Context(), MachineConfig{Name: "m"})
	must(t, err)
	card := nic(t, m)
	waitCarrier(t, l, m.tap)
	if n := flood(t, l, card); n != 140_000 {
		t.Errorf("%d of 140000 bytes arrive by a cable that nothing is done to", n)
	}
	must(t, m.Slow(t.Context(), 1_000_000))
	if n := flood(t, l, card); n < 10_000 || n > 100_000 {
		t.Errorf("%d of 140000 bytes arrive at once by a cable of 1 Mbit/s", n)
	}
	must(t, m.Slow(t.Context(), 0))
	must(t, m.SetLink(t.Context(), false))
	if n := flood(t, l, card); n != 0 {
		t.Errorf("%d bytes arrive by a cable that is pulled", n)
	}
	must(t, m.SetLink(t.Context(), true))
	waitCarrier(t, l, m.tap)
	if n := flood(t, l, card); n != 140_000 {
		t.Errorf("%d of 140000 bytes arrive after all was put right", n)
	}
}

// waitCarrier waits until the switch passes frames to a port.
func waitCarrier(t *testing.T, l *Lab, port string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for {
		out, err := l.output(ctx, l.switchNS(), "ip", "-d", "link", "show", port)
		must(t, err)
		if bytes.Contains(out, []byte("state forwarding")) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestWhatAMachineSendsToABlockedPortIsDropped(t *testing.T) {
	l := openLab(t, Config{WithoutDHCP: true})
	must(t, l.Block(t.Context(), Swarm))
	must(t, l.Block(t.Context(), TFTP))
	m, err := l.Machine(t.Context(), MachineConfig{Name: "m"}) // after the blocks
	must(t, err)
	card, tftp, other := nic(t, m), hears(t, l, 69), hears(t, l, 70)
	waitCarrier(t, l, m.tap)
	for port, arrives := range map[int]bool{69: false, 70: true} {
		_, err := card.Write(datagram(m.MAC, port, fmt.Sprint(port)))
		must(t, err)
		if got := map[int]func(int) bool{69: tftp, 70: other}[port](port); got != arrives {
			t.Errorf("the machine's datagram to port %d: arrived is %v", port, got)
		}
	}
}

// datagram is a frame of Ethernet with UDP over IPv4 from 10.77.0.99 to the appliance.
func datagram(from net.HardwareAddr, port int, text string) []byte {
	b := append([]byte{0x52, 0x54, 0x00, 0x77, 0xff, 0x02}, from...)
	b = append(b, 0x08, 0x00)
	header := []byte{0x45, 0, 0, byte(28 + len(text)), 0, 1, 0, 0, 64, 17, 0, 0, 10, 77, 0, 99, 10, 77, 0, 1}
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	binary.BigEndian.PutUint16(header[10:], ^uint16(sum+sum>>16))
	b = append(b, header...)
	b = binary.BigEndian.AppendUint16(b, 1024)
	b = binary.BigEndian.AppendUint16(b, uint16(port))
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(text)))
	return append(append(b, 0, 0), text...) // no checksum (RFC 768)
}

func TestAForeignDHCPServerNamesABootFileOrNone(t *testing.T) {
	for _, name := range []string{"", "undionly.kpxe"} {
		l := openLab(t, Config{BootFile: BootFile{Name: name}})
		var client *nclient4.Client
		inside(t, l.Namespace(), func() (err error) {
			client, err = nclient4.New(Interface, nclient4.WithTimeout(5*time.Second))
			return err
		})
		offer, err := client.DiscoverOffer(t.Context())
		must(t, errors.Join(err, client.Close()))
		if offer.BootFileName != name {
			t.Errorf("the DHCP server names the file %q, not %q", offer.BootFileName, name)
		}
		if name != "" && offer.ServerIPAddr.String() != ApplianceAddr.String() {
			t.Errorf("the DHCP server says that the file is at %s", offer.ServerIPAddr)
		}
	}
}

// TestOnlyMachinesWithOtherKeysLackMicrosofts: the subject of a certificate lies in a firmware's variables as plain bytes.
func TestOnlyMachinesWithOtherKeysLackMicrosofts(t *testing.T) {
	l := openLab(t, Config{WithoutDHCP: true})
	for firmware, has := range map[Firmware]bool{SecureBoot: true, OtherKeys: false} {
		m, err := l.Machine(t.Context(), MachineConfig{Name: string(firmware), Firmware: firmware})
		must(t, err)
		vars, err := os.ReadFile(m.vars)
		must(t, err)
		if got := bytes.Contains(vars, []byte("Microsoft Corporation UEFI CA 2011")); got != has {
			t.Errorf("a machine of kind %s has Microsoft's key: %v", firmware, got)
		}
		if !bytes.Contains(vars, utf16z("SecureBootEnable")) {
			t.Errorf("a machine of kind %s has no Secure Boot", firmware)
		}
	}
}
