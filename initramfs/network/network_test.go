package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"seedbed/initramfs/reboot"

	"seedbed/appliance/job"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run runs a command and fails the test if it fails.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// lab is two network namespaces: the machine's, with NICs "boot" and "other", and the server's, with the other ends.
type lab struct{ machine, server string }

func newLab(t *testing.T) lab {
	t.Helper()
	for tool, pkg := range map[string]string{"ip": "iproute2", "dnsmasq": "dnsmasq-base"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: apt-get install %s", tool, pkg)
		}
	}
	l := lab{fmt.Sprintf("sbnetm%d", os.Getpid()), fmt.Sprintf("sbnets%d", os.Getpid())}
	for _, ns := range []string{l.machine, l.server} {
		run(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { run(t, "ip", "netns", "del", ns) })
	}
	run(t, "ip", "-n", l.machine, "link", "set", "lo", "up")
	for i, nic := range []string{"boot", "other"} {
		run(t, "ip", "-n", l.machine, "link", "add", nic, "address", fmt.Sprintf("02:00:00:00:00:0%d", i+1),
			"type", "veth", "peer", "name", nic, "netns", l.server)
	}
	run(t, "ip", "-n", l.server, "addr", "add", "10.99.0.1/24", "dev", "boot")
	return l
}

// serve starts dnsmasq on an interface of the server and brings that up.
func (l lab) serve(t *testing.T, nic, addresses string) {
	t.Helper()
	run(t, "ip", "-n", l.server, "link", "set", nic, "up")
	cmd := exec.Command("ip", "netns", "exec", l.server, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface="+nic,
		"--bind-interfaces", "--dhcp-range="+addresses+",255.255.255.0,2m", "--no-ping", "--log-facility=-", "--pid-file=",
		"--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"), "--dhcp-option=3,10.99.0.1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// answer is what the program inside the machine's namespace prints.
type answer struct {
	Lease Lease
	First string // status before there was an address
	Addrs string
}

// inside runs TestInside of this program in the machine's namespace.
func (l lab) inside(t *testing.T, ready func()) answer {
	t.Helper()
	cmd := exec.Command("ip", "netns", "exec", l.machine, os.Args[0], "-test.run=^TestInside$", "-test.v")
	cmd.Env = append(os.Environ(), "SEEDBED_NETWORK_TEST="+t.TempDir())
	file := filepath.Join(strings.TrimPrefix(cmd.Env[len(cmd.Env)-1], "SEEDBED_NETWORK_TEST="), "answer")
	if ready != nil {
		timer := time.AfterFunc(300*time.Millisecond, ready)
		defer timer.Stop()
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var a answer
	if err := json.Unmarshal(b, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// TestInside is the machine's side of the other tests; by itself it does nothing.
func TestInside(t *testing.T) {
	dir := os.Getenv("SEEDBED_NETWORK_TEST")
	if dir == "" {
		return
	}
	n := New(Config{BootMAC: "02:00:00:00:00:01", Grace: time.Second})
	var a answer
	_, a.First = n.Status()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	var err error
	if a.Lease, err = n.Wait(ctx); err != nil {
		_, status := n.Status()
		t.Errorf("%v: %s", err, status)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	a.Addrs = run(t, "ip", "-br", "-4", "addr") + run(t, "ip", "route")
	if err := reboot.LinksDown(); err != nil {
		t.Error(err)
	}
	if out := run(t, "ip", "-br", "link"); strings.Contains(out, "LOWER_UP") && strings.Contains(out, "boot@") && strings.Contains(out, " UP ") {
		t.Errorf("links are up: %s", out)
	}
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "answer"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBootNICGetsAnAddressFromDnsmasq(t *testing.T) {
	l := newLab(t)
	l.serve(t, "boot", "10.99.0.100,10.99.0.110")
	run(t, "ip", "-n", l.server, "link", "set", "other", "up") // a network without a DHCP server
	a := l.inside(t, nil)
	if a.Lease.NIC != "boot" || !strings.HasPrefix(a.Lease.Prefix.String(), "10.99.0.1") || a.Lease.Prefix.Bits() != 24 ||
		a.Lease.Server.String() != "10.99.0.1" || a.Lease.Router.String() != "10.99.0.1" || a.Lease.Wait <= 0 {
		t.Errorf("lease %+v", a.Lease)
	}
	if !strings.Contains(a.Addrs, a.Lease.Prefix.String()) || !strings.Contains(a.Addrs, "default via 10.99.0.1 dev boot") {
		t.Errorf("the machine has\n%s", a.Addrs)
	}
}

func TestLinkThatComesUpLateIsUsed(t *testing.T) {
	l := newLab(t)
	a := l.inside(t, func() { l.serve(t, "boot", "10.99.0.100,10.99.0.110") })
	if a.Lease.NIC != "boot" {
		t.Errorf("lease %+v", a.Lease)
	}
	if !strings.Contains(a.First, "no network card") {
		t.Errorf("first status: %s", a.First)
	}
}

func TestAnotherNICServesWhenTheBootNICIsSilent(t *testing.T) {
	l := newLab(t)
	run(t, "ip", "-n", l.server, "addr", "del", "10.99.0.1/24", "dev", "boot")
	run(t, "ip", "-n", l.server, "addr", "add", "10.99.0.1/24", "dev", "other")
	l.serve(t, "other", "10.99.0.100,10.99.0.110")
	if a := l.inside(t, nil); a.Lease.NIC != "other" {
		t.Errorf("lease %+v", a.Lease)
	}
}

func TestBootNICHasTheDefaultRoute(t *testing.T) {
	n := New(Config{BootMAC: "02:00:00:00:00:0A"})
	if boot, other := n.metric("02:00:00:00:00:0a", 3), n.metric("02:00:00:00:00:02", 2); boot >= other {
		t.Errorf("the boot NIC's route has metric %d, another one's %d", boot, other)
	}
	if first, second := n.metric("02:00:00:00:00:01", 2), n.metric("02:00:00:00:00:02", 3); first >= second {
		t.Errorf("metrics %d and %d", first, second)
	}
}

func TestStatusNamesWhatIsMissing(t *testing.T) {
	if code, s := New(Config{}).Status(); code != job.LeftNoCard || !strings.Contains(s, "no network card") {
		t.Error(code, s)
	}
}

func TestListShowsHardwareOnly(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"sys/class/net/eth0/type": "1\n", "sys/class/net/eth0/address": "52:54:00:00:00:01\n", "sys/class/net/eth0/speed": "1000\n",
		"sys/class/net/eth0/device/x": "", "sys/class/net/br0/type": "1\n", "sys/class/net/lo/type": "772\n",
		"sys/bus/pci/devices/0000:02:00.0/class": "0x020000\n", "sys/bus/pci/devices/0000:02:00.0/vendor": "0x8086\n",
		"sys/bus/pci/devices/0000:02:00.0/device": "0x15f3\n", "sys/bus/pci/devices/0000:03:00.0/class": "0x010600\n",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../../../bus/pci/drivers/igc", filepath.Join(root, "sys/class/net/eth0/device/driver")); err != nil {
		t.Fatal(err)
	}
	nics := List(root, nil)
	if len(nics) != 1 || nics[0].Name != "eth0" || nics[0].Driver != "igc" || nics[0].Mbit != 1000 {
		t.Errorf("%+v", nics)
	}
	if got := strings.Join(Unbound(root), ","); got != "8086:15f3 at 0000:02:00.0" {
		t.Error(got)
	}
}

func TestTheCardThatItBootedFromIsKnownByItsAddress(t *testing.T) {
	const mac = "52:54:00:77:00:1a"
	address, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	for boot, want := range map[string]bool{mac: true, strings.ToUpper(mac): true, "": true, "52:54:00:77:00:1b": false} {
		n := New(Config{BootMAC: boot})
		if n.HasBootCard() {
			t.Errorf("without any card that with %q is there", boot)
		}
		n.nics["eth0"] = &nic{link: &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "eth0", HardwareAddr: address}}}
		if got := n.HasBootCard(); got != want {
			t.Errorf("with %s there, the card %q is there: %v", mac, boot, got)
		}
	}
}
