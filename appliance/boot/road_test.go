package boot

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"seedbed/appliance/dhcp"
	"seedbed/appliance/tftp"
)

// room is a network of its own: the appliance, a foreign DHCP server and one machine on a bridge, each in a network
// namespace.
type room struct {
	testing.TB
	appliance, customer, machine string // names of the namespaces
}

// sh runs a program and fails the test with its words.
func (r *room) sh(words ...string) string {
	r.Helper()
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		r.Fatalf("%s: %v: %s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

// at runs a program in a namespace.
func (r *room) at(ns string, words ...string) string {
	r.Helper()
	return r.sh(append([]string{"ip", "netns", "exec", ns}, words...)...)
}

// within runs f on a thread in a namespace; sockets opened there stay there.
func (r *room) within(ns string, f func() error) {
	r.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine and its namespace
		h, err := netns.GetFromName(ns)
		if err == nil {
			defer h.Close()
			err = netns.Set(h)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		r.Fatalf("in namespace %s: %v", ns, err)
	}
}

func newRoom(t testing.TB) *room {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("network namespaces need root")
	}
	for tool, pkg := range map[string]string{"ip": "iproute2", "ss": "iproute2", "dnsmasq": "dnsmasq-base", "curl": "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: install the Debian package %s", tool, pkg)
		}
	}
	id := fmt.Sprintf("sbboot%d", os.Getpid())
	r := &room{t, id + "a", id + "c", id + "m"}
	for _, ns := range []string{r.appliance, r.customer, r.machine} {
		r.sh("ip", "netns", "add", ns)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
		r.sh("ip", "-n", ns, "link", "set", "lo", "up")
	}
	r.sh("ip", "-n", r.appliance, "link", "add", "br0", "type", "bridge", "forward_delay", "0", "stp_state", "0")
	r.sh("ip", "-n", r.appliance, "addr", "add", "10.77.0.1/24", "dev", "br0")
	r.sh("ip", "-n", r.appliance, "link", "set", "br0", "up")
	for ns, addr := range map[string]string{r.customer: "10.77.0.2/24", r.machine: machineAddr.String() + "/24"} {
		port := "p" + ns[len(ns)-1:]
		r.sh("ip", "-n", r.appliance, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns)
		r.sh("ip", "-n", r.appliance, "link", "set", port, "master", "br0", "up")
		r.sh("ip", "-n", ns, "addr", "add", addr, "dev", "eth0")
	}
	r.sh("ip", "-n", r.machine, "link", "set", "eth0", "address", machine.String())
	r.sh("ip", "-n", r.customer, "link", "set", "eth0", "up")
	r.sh("ip", "-n", r.machine, "link", "set", "eth0", "up")
	return r
}

// customerDHCP starts the DHCP server that is there already.
func (r *room) customerDHCP() {
	r.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, "ip", "netns", "exec", r.customer, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null",
		"--port=0", "--interface=eth0", "--bind-interfaces", "--no-ping", "--user=root", "--no-resolv",
		"--dhcp-range=10.77.0.100,10.77.0.200,255.255.255.0,1h", "--dhcp-leasefile="+filepath.Join(r.TempDir(), "leases"))
	if err := c.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { cancel(); c.Wait() })
}

// serveVariable makes the test program the appliance of a room: its value is the boot directory. A process of its own,
// since every transfer of the TFTP server opens a socket on some thread.
const serveVariable = "SEEDBED_TEST_BOOT_DIR"

// serve runs the boot side of the appliance in its namespace until the test ends.
func (r *room) serve(dir string) {
	r.Helper()
	c := exec.Command("ip", "netns", "exec", r.appliance, os.Args[0])
	c.Env = append(os.Environ(), serveVariable+"="+dir)
	c.Stderr = os.Stderr
	stdin, err := c.StdinPipe()
	if err != nil {
		r.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		r.Fatal(err)
	}
	if err := c.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		stdin.Close()
		if err := c.Wait(); err != nil {
			r.Errorf("the appliance ends with %v", err)
		}
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		r.Fatalf("the appliance says %q, %v", line, err)
	}
}

// serveUntilEOF is the appliance: it serves every machine the agent until its standard input ends.
func serveUntilEOF(dir string) error {
	files, err := OpenFiles(dir)
	if err != nil {
		return err
	}
	b, err := New(Config{Files: files, Fleet: &fakeFleet{assignment: Assignment{Run: RunAgent}}})
	if err != nil {
		return err
	}
	d, err := dhcp.New(dhcp.Config{Interface: "br0"}, b.AnswerDHCP, nil)
	if err != nil {
		return err
	}
	t, err := tftp.New(tftp.Config{}, b.OpenTFTP, nil)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp4", ":80")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.Run(ctx) })
	g.Go(func() error { return t.Run(ctx) })
	g.Go(func() error { return b.Run(ctx, l) })
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	cancel()
	return g.Wait()
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveVariable); dir != "" {
		if err := serveUntilEOF(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// port opens a UDP port in a namespace.
func (r *room) port(ns string, number int) *net.UDPConn {
	r.Helper()
	var c *net.UDPConn
	r.within(ns, func() (err error) {
		c, err = server4.NewIPv4UDPConn("eth0", &net.UDPAddr{Port: number})
		return err
	})
	r.Cleanup(func() { c.Close() })
	return c
}

// firmwarePacket is a capture of real firmware, from the dhcp package.
func firmwarePacket(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "dhcp", "testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			digits.WriteString(strings.TrimSpace(line))
		}
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ask sends a packet and returns the answers by server, until all wanted servers have answered. The packet is repeated
// as firmware does, since the other server may still be starting.
func ask(t testing.TB, c *net.UDPConn, packet []byte, to string, servers ...string) map[string]*dhcpv4.DHCPv4 {
	t.Helper()
	answers := make(map[string]*dhcpv4.DHCPv4)
	buf := make([]byte, 2048)
	missing := func() bool {
		for _, s := range servers {
			if answers[s] == nil {
				return true
			}
		}
		return false
	}
	for range 20 {
		if _, err := c.WriteToUDP(packet, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for missing() {
			n, from, err := c.ReadFromUDP(buf)
			if err != nil {
				break
			}
			if m, err := dhcpv4.FromBytes(buf[:n]); err == nil && bytes.Equal(m.TransactionID[:], packet[4:8]) {
				answers[from.IP.String()] = m
			}
		}
		if !missing() {
			return answers
		}
	}
	t.Fatalf("answers came from %d of the servers %v", len(answers), servers)
	return nil
}

// The packets that OVMF sent are answered beside a foreign DHCP server; then curl walks the road as loaders do.
func TestRoadBesideAForeignDHCPServer(t *testing.T) {
	r := newRoom(t)
	r.customerDHCP()
	boot := bootDir(t)
	r.serve(boot)

	answers := ask(t, r.port(r.machine, 68), firmwarePacket(t, "ovmf-pxe-discover"), "255.255.255.255:67", "10.77.0.1", "10.77.0.2")
	ours, theirs := answers["10.77.0.1"], answers["10.77.0.2"]
	if ours.BootFileName != "525400770011/shimx64.efi" || !ours.YourIPAddr.IsUnspecified() || ours.ClassIdentifier() != "PXEClient" {
		t.Errorf("the appliance offers:\n%s", ours.Summary())
	}
	if theirs.YourIPAddr.IsUnspecified() {
		t.Errorf("the foreign server offers no address:\n%s", theirs.Summary())
	}
	ack := ask(t, r.port(r.machine, 4011), firmwarePacket(t, "ovmf-pxe-4011"), "10.77.0.1:4011", "10.77.0.1")["10.77.0.1"]
	if ack.MessageType() != dhcpv4.MessageTypeAck || ack.BootFileName != "525400770011/shimx64.efi" {
		t.Errorf("port 4011 says:\n%s", ack.Summary())
	}

	shim := r.at(r.machine, "curl", "-sSf", "-m", "10", "tftp://10.77.0.1/525400770011/shimx64.efi")
	if want, err := os.ReadFile(filepath.Join(boot, fileShim)); err != nil || shim != string(want) {
		t.Errorf("shim over TFTP is %q", shim)
	}
	grub := r.at(r.machine, "curl", "-sSf", "-m", "10", "tftp://10.77.0.1//grub/grub.cfg")
	if !strings.Contains(grub, "(http,10.77.0.1)/grub/machine.cfg") {
		t.Errorf("grub.cfg does not name the appliance as the machine reaches it:\n%s", grub)
	}
	if head := r.at(r.machine, "curl", "-sSfI", "http://10.77.0.1/525400770011//grubx64.efi"); !strings.Contains(head, "200 OK") {
		t.Errorf("HEAD of a path with a double slash:\n%s", head)
	}
	r.at(r.machine, "curl", "-sSf", "http://10.77.0.1/grub/machine.cfg?mac=52:54:00:77:00:11&secure=on")
	token := r.at(r.machine, "curl", "-sSf", "http://10.77.0.1/boot/token?mac=52:54:00:77:00:11")
	dir := t.TempDir()
	unpack := exec.Command("cpio", "-i", "-d", "--quiet")
	unpack.Dir, unpack.Stdin = dir, strings.NewReader(token)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("cpio does not read the token's archive: %v: %s", err, out)
	}
	file := filepath.Join(dir, "etc/seedbed/boot.json")
	content, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(content), `"mac":"52:54:00:77:00:11"`) {
		t.Errorf("the token's file is %q, %v", content, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file has mode %v, %v", info.Mode(), err)
	}
}

// An operating system's DISCOVER is for the DHCP server alone.
func TestMachinesThatDoNotBootFromTheNetworkGetNoAnswer(t *testing.T) {
	r := newRoom(t)
	r.customerDHCP()
	r.serve(bootDir(t))
	system, err := dhcpv4.NewDiscovery(machine[:], dhcpv4.WithBroadcast(true))
	if err != nil {
		t.Fatal(err)
	}
	c := r.port(r.machine, 68)
	if answers := ask(t, c, system.ToBytes(), "255.255.255.255:67", "10.77.0.2"); answers["10.77.0.1"] != nil {
		t.Error("the appliance answered it")
	}
	// The answer to a later question of firmware is the first that the appliance sends.
	ask(t, c, firmwarePacket(t, "undionly-discover"), "255.255.255.255:67", "10.77.0.1")
}

// GRUB opens all its connections from port 21550: nothing may be left of the one before.
func TestGRUBComesAgainFromTheSamePort(t *testing.T) {
	r := newRoom(t)
	dir := bootDir(t)
	kernel := bytes.Repeat([]byte("kernel"), 2<<20)
	if err := os.WriteFile(filepath.Join(dir, fileKernel), kernel, 0o644); err != nil {
		t.Fatal(err)
	}
	r.serve(dir)
	out := filepath.Join(t.TempDir(), "vmlinuz")
	asGRUB := []string{"curl", "-sSf", "-m", "10", "-A", "GRUB 2.12-9+deb13u2", "--local-port", "21550", "-o", out}
	for range 5 {
		r.at(r.machine, append(asGRUB, "http://10.77.0.1/boot/vmlinuz")...)
		if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, kernel) {
			t.Fatalf("%d of %d bytes of the kernel came, %v", len(got), len(kernel), err)
		}
		if left := r.at(r.appliance, "ss", "-Htan", "dst", machineAddr.String()); left != "" {
			t.Errorf("the appliance still holds:\n%s", left)
		}
	}

	// The machine is switched off in mid-download: it neither reads on nor says farewell.
	var c net.Conn
	r.within(r.machine, func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: machineAddr.AsSlice(), Port: 21550}}
		c, err = d.Dial("tcp4", "10.77.0.1:80")
		return err
	})
	fmt.Fprint(c, "GET /boot/vmlinuz HTTP/1.1\r\nHost: x\r\nUser-Agent: GRUB 2.12\r\n\r\n")
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	r.sh("ip", "-n", r.machine, "link", "set", "eth0", "down")
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	if left := r.at(r.appliance, "ss", "-Htan", "dst", machineAddr.String()); !strings.Contains(left, "ESTAB") {
		t.Fatalf("the test does not do what it says: the appliance holds %q", left)
	}
	// Its firmware starts anew, with a packet that tells its address and one that begins the boot. They come from
	// elsewhere: this machine's own kernel would reset the old connection as soon as its link is up.
	ask(t, r.port(r.customer, 4011), firmwarePacket(t, "ovmf-pxe-4011"), "10.77.0.1:4011", "10.77.0.1")
	ask(t, r.port(r.customer, 68), firmwarePacket(t, "ovmf-pxe-discover"), "255.255.255.255:67", "10.77.0.1")
	if left := r.at(r.appliance, "ss", "-Htan", "dst", machineAddr.String()); left != "" {
		t.Errorf("after the machine started anew the appliance still holds:\n%s", left)
	}
	r.sh("ip", "-n", r.machine, "link", "set", "eth0", "up")
	r.at(r.machine, append(asGRUB, "http://10.77.0.1/boot/vmlinuz")...)
}
