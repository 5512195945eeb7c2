// Package lab is a virtual room: an isolated network with a DHCP server that belongs to somebody else, a namespace for
// the appliance, and QEMU machines with real firmware which are switched on, cut and judged.
package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// The addresses of every lab; labs do not see each other.
var (
	Network       = netip.MustParsePrefix("10.77.0.0/24")
	ApplianceAddr = netip.MustParseAddr("10.77.0.1")
	DHCPAddr      = netip.MustParseAddr("10.77.0.2")
)

// Interface is the name of the appliance's network interface inside its namespace.
const Interface = "br0"

// Config says how a lab is made.
type Config struct {
	// Dir receives disks, firmware variables and serial logs; it must exist.
	Dir string
	// WithoutDHCP leaves out the foreign DHCP server: a network where nobody answers.
	WithoutDHCP bool
	// BootFile is what the foreign DHCP server tells machines to load; zero is nothing, as for one that knows nothing of booting.
	BootFile BootFile
	Log      *slog.Logger // nil discards
}

// Lab is one virtual room. Its methods are safe for concurrent use.
type Lab struct {
	Dir string

	log      *slog.Logger
	name     string // of its namespaces: "seedbed-4711-0"
	uplink   atomic.Int32
	mu       sync.Mutex // guards what follows
	machines []*Machine
	children []*Process
	others   []string // namespaces of appliances beside the first
	blocked  []Service
}

var sequence atomic.Int32

// Start makes the network and, unless told otherwise, starts the foreign DHCP server. Needs root. After an error nothing
// is left behind; otherwise the caller calls Close.
func Start(ctx context.Context, c Config) (*Lab, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("lab: only root can make network namespaces; run it as root")
	}
	if err := checkTools(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(c.Dir) // the DHCP server works in another directory
	if err != nil {
		return nil, err
	}
	removeStale(ctx)
	l := &Lab{Dir: dir, log: c.Log, name: fmt.Sprintf("seedbed-%d-%d", os.Getpid(), sequence.Add(1))}
	if err := l.makeNetwork(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if !c.WithoutDHCP {
		if err := l.startDHCP(ctx, c.BootFile); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

func (l *Lab) switchNS() string { return l.name + "-switch" }
func (l *Lab) dhcpNS() string   { return l.name + "-dhcp" }

// Servers is the name of the network namespace with the servers that belong to somebody else, at DHCPAddr: DHCP, and what a test
// starts there.
func (l *Lab) Servers() string { return l.dhcpNS() }

// Namespace is the name of the network namespace in which the appliance runs; its interface is Interface.
func (l *Lab) Namespace() string { return l.name + "-appliance" }

// makeNetwork makes three namespaces: the switch, to which the machines are plugged, the appliance and the foreign DHCP
// server, each joined to the switch by a cable of its own, so that what passes the appliance's interface is what the
// appliance sends and receives.
func (l *Lab) makeNetwork(ctx context.Context) error {
	sw, app, dhcp := l.switchNS(), l.Namespace(), l.dhcpNS()
	commands := []string{
		"netns add " + sw, "netns add " + app, "netns add " + dhcp,
		"-n " + sw + " link set lo up", "-n " + app + " link set lo up",
		"-n " + sw + " link add switch type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
		// A bridge takes the lowest address of its ports, which come and go, unless it has one of its own.
		"-n " + sw + " link set switch address 52:54:00:77:ff:01",
		"-n " + sw + " link set switch up",
		"-n " + sw + " link add appliance type veth peer name " + Interface + " netns " + app,
		"-n " + sw + " link add dhcp type veth peer name eth0 netns " + dhcp,
		"-n " + sw + " link set appliance master switch up",
		"-n " + sw + " link set dhcp master switch up",
		"-n " + app + " link set " + Interface + " address 52:54:00:77:ff:02 up",
		"-n " + app + " addr add " + addrOn(ApplianceAddr) + " brd + dev " + Interface,
		"-n " + dhcp + " link set eth0 address 52:54:00:77:ff:03 up",
		"-n " + dhcp + " addr add " + addrOn(DHCPAddr) + " brd + dev eth0",
		"-n " + dhcp + " addr add fd77::2/64 dev eth0 nodad",
	}
	for _, c := range commands {
		if err := ip(ctx, strings.Fields(c)...); err != nil {
			return err
		}
	}
	return errors.Join(l.guard(ctx, "appliance"), l.guard(ctx, "dhcp"))
}

// plugAppliance makes a namespace for one more appliance, with a cable of its own to the switch, and returns its name.
func (l *Lab) plugAppliance(ctx context.Context) (ns string, err error) {
	l.mu.Lock()
	n := len(l.others) + 2
	ns = fmt.Sprintf("%s-appliance%d", l.name, n)
	l.others = append(l.others, ns)
	l.mu.Unlock()
	port := fmt.Sprintf("appliance%d", n)
	for _, c := range []string{
		"netns add " + ns, "-n " + ns + " link set lo up",
		"-n " + l.switchNS() + " link add " + port + " type veth peer name " + Interface + " netns " + ns,
		"-n " + l.switchNS() + " link set " + port + " master switch up",
		"-n " + ns + " link set " + Interface + fmt.Sprintf(" address 52:54:00:77:ff:%02x up", 0x10+n),
		"-n " + ns + " addr add " + addrOn(applianceAddr(n)) + " brd + dev " + Interface,
	} {
		if err := ip(ctx, strings.Fields(c)...); err != nil {
			return "", err
		}
	}
	return ns, l.guard(ctx, port)
}

// applianceAddr is the address of the n-th appliance, n from 1.
func applianceAddr(n int) netip.Addr {
	if n == 1 {
		return ApplianceAddr
	}
	return netip.AddrFrom4([4]byte{10, 77, 0, byte(10 + n)})
}

func addrOn(a netip.Addr) string { return fmt.Sprintf("%s/%d", a, Network.Bits()) }

// plug makes a tap on the switch for one machine.
func (l *Lab) plug(ctx context.Context, tap string) error {
	if err := ip(ctx, "-n", l.switchNS(), "tuntap", "add", "dev", tap, "mode", "tap"); err != nil {
		return err
	}
	if err := ip(ctx, "-n", l.switchNS(), "link", "set", tap, "master", "switch", "up"); err != nil {
		return err
	}
	return l.guard(ctx, tap)
}

// SetLink pulls or plugs the appliance's cable.
func (l *Lab) SetLink(ctx context.Context, up bool) error {
	state := "down"
	if up {
		state = "up"
	}
	return ip(ctx, "-n", l.switchNS(), "link", "set", "appliance", state)
}

// StopDHCP ends the foreign DHCP server, as if it broke down.
func (l *Lab) StopDHCP() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.children {
		if p.name == "dnsmasq" {
			return p.Kill()
		}
	}
	return errors.New("lab: no DHCP server runs")
}

// Close switches off every machine, ends every process and removes the network. Files in Dir stay.
func (l *Lab) Close() error {
	l.mu.Lock()
	machines, children, others := l.machines, l.children, l.others
	l.machines, l.children, l.others = nil, nil, nil
	l.mu.Unlock()
	var errs []error
	for _, m := range machines {
		errs = append(errs, m.Cut())
	}
	for _, p := range children {
		errs = append(errs, p.Kill())
	}
	for _, ns := range append(others, l.dhcpNS(), l.Namespace(), l.switchNS()) {
		if _, err := os.Stat(filepath.Join("/run/netns", ns)); err == nil {
			errs = append(errs, ip(context.Background(), "netns", "del", ns))
		}
	}
	return errors.Join(errs...)
}

// removeStale removes the networks of labs whose process died without Close.
func removeStale(ctx context.Context) {
	names, err := filepath.Glob("/run/netns/seedbed-*-*-*")
	if err != nil {
		return
	}
	for _, path := range names {
		name := filepath.Base(path)
		pid, err := strconv.Atoi(strings.Split(name, "-")[1])
		if err == nil && pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			ip(ctx, "netns", "del", name)
		}
	}
}

// MAC returns the address of the lab's n-th machine, n from 0.
func MAC(n int) net.HardwareAddr {
	return net.HardwareAddr{0x52, 0x54, 0x00, 0x77, 0x00, byte(0x10 + n)}
}

func ip(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// tools are the programs that a lab runs, with the Debian package of each.
var tools = map[string]string{"ip": "iproute2", "tc": "iproute2", "dnsmasq": "dnsmasq-base", "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils"}

func checkTools() error {
	missing := map[string]bool{}
	for tool, pkg := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing[pkg] = true
		}
	}
	for _, f := range []string{codeFile, secureCodeFile, varsFile, secureVarsFile, otherKeysFile} {
		if _, err := os.Stat(f); err != nil {
			missing["ovmf"] = true
		}
	}
	if len(missing) == 0 {
		return nil
	}
	var list []string
	for pkg := range missing {
		list = append(list, pkg)
	}
	return fmt.Errorf("lab: programs are missing; run: apt-get install %s", strings.Join(list, " "))
}
