package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
)

// Service is a port of UDP or TCP.
type Service struct {
	Protocol string // "udp", "tcp"
	Port     uint16
}

// Services whose loss tests stage.
var (
	TFTP   = Service{"udp", 69}
	PXE    = Service{"udp", 4011}
	HTTP   = Service{"tcp", 80}
	Agents = Service{"tcp", 443}
	Swarm  = Service{"tcp", 6881}
)

func (s Service) String() string {
	return fmt.Sprintf("%s port %d", strings.ToUpper(s.Protocol), s.Port)
}

// protocols are the numbers of the IPv4 header (RFC 791 §3.1).
var protocols = map[string]int{"udp": 17, "tcp": 6}

// program drops frames of IPv4 to the service and lets all others pass to the next filter: classic BPF (linux/filter.h) as
// tc takes it. Fragments beside the first one pass. The last two lines return TC_ACT_SHOT and TC_ACT_UNSPEC (linux/pkt_cls.h).
func (s Service) program() (string, error) {
	protocol, known := protocols[s.Protocol]
	if !known {
		return "", fmt.Errorf("lab: protocol %q is neither udp nor tcp", s.Protocol)
	}
	lines := []string{
		"40 0 0 12",   // ldh [12]: EtherType
		"21 0 8 2048", // IPv4?
		"48 0 0 23",   // ldb [23]: protocol
		fmt.Sprintf("21 0 6 %d", protocol),
		"40 0 0 20",   // ldh [20]: flags, fragment offset
		"69 4 0 8191", // a later fragment has no ports
		"177 0 0 14",  // ldxb 4*([14]&15): length of the IPv4 header
		"72 0 0 16",   // ldh [x+16]: destination port
		fmt.Sprintf("21 0 1 %d", s.Port),
		"6 0 0 2",
		"6 0 0 4294967295",
	}
	return fmt.Sprintf("%d,%s", len(lines), strings.Join(lines, ",")), nil
}

// Block has the switch drop what is sent to a service from now on, whoever sends it to whom, connections that stand
// included, as a firewall between the ports does. What machines and servers send from that port passes.
func (l *Lab) Block(ctx context.Context, s Service) error {
	code, err := s.program()
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.blocked = append(l.blocked, s)
	l.mu.Unlock()
	ports, err := l.ports(ctx)
	if err != nil {
		return err
	}
	for _, port := range ports {
		if err := l.filter(ctx, port, code); err != nil {
			return err
		}
	}
	return nil
}

// Unblock lets everything pass again.
func (l *Lab) Unblock(ctx context.Context) error {
	l.mu.Lock()
	l.blocked = nil
	l.mu.Unlock()
	ports, err := l.ports(ctx)
	if err != nil {
		return err
	}
	for _, port := range ports {
		if err := tc(ctx, "-n", l.switchNS(), "filter", "del", "dev", port, "ingress"); err != nil {
			return err
		}
	}
	return nil
}

// Dropped returns how many frames the switch has dropped for Block so far.
func (l *Lab) Dropped(ctx context.Context) (frames int64, err error) {
	out, err := exec.CommandContext(ctx, "tc", "-n", l.switchNS(), "-s", "-j", "qdisc", "show").Output()
	if err != nil {
		return 0, fmt.Errorf("counters of the switch's filters: %w", err)
	}
	var disciplines []struct {
		Kind  string
		Drops int64
	}
	if err := json.Unmarshal(out, &disciplines); err != nil {
		return 0, fmt.Errorf("counters of the switch's filters: %w", err)
	}
	for _, d := range disciplines {
		if d.Kind == "clsact" {
			frames += d.Drops
		}
	}
	return frames, nil
}

// filter drops what comes into the switch by a port and is told by code.
func (l *Lab) filter(ctx context.Context, port, code string) error {
	return tc(ctx, "-n", l.switchNS(), "filter", "add", "dev", port, "ingress", "bpf", "da", "bytecode", code)
}

// guard makes a new port of the switch one that can drop, and has it drop what the others do.
func (l *Lab) guard(ctx context.Context, port string) error {
	if err := tc(ctx, "-n", l.switchNS(), "qdisc", "add", "dev", port, "clsact"); err != nil {
		return err
	}
	l.mu.Lock()
	blocked := append([]Service(nil), l.blocked...)
	l.mu.Unlock()
	for _, s := range blocked {
		code, err := s.program()
		if err != nil {
			return err
		}
		if err := l.filter(ctx, port, code); err != nil {
			return err
		}
	}
	return nil
}

// ports are the names of the switch's ports.
func (l *Lab) ports(ctx context.Context) (names []string, err error) {
	out, err := exec.CommandContext(ctx, "ip", "-n", l.switchNS(), "-j", "link", "show", "master", "switch").Output()
	if err != nil {
		return nil, fmt.Errorf("ports of the switch: %w", err)
	}
	var links []struct{ Ifname string }
	if err := json.Unmarshal(out, &links); err != nil {
		return nil, fmt.Errorf("ports of the switch: %w", err)
	}
	for _, link := range links {
		names = append(names, link.Ifname)
	}
	return names, nil
}

// SetLink pulls or plugs the machine's cable; its NIC sees no signal while it is pulled.
func (m *Machine) SetLink(ctx context.Context, up bool) error {
	state := "down"
	if up {
		state = "up"
	}
	return ip(ctx, "-n", m.lab.switchNS(), "link", "set", m.tap, state)
}

// Slow limits what the machine receives to bits a second; 0 takes the limit away.
func (m *Machine) Slow(ctx context.Context, bitsPerSecond int64) error {
	if bitsPerSecond == 0 {
		return tc(ctx, "-n", m.lab.switchNS(), "qdisc", "del", "dev", m.tap, "root")
	}
	burst := max(16<<10, bitsPerSecond/8/100) // bytes: what passes in 10 ms, the kernel's clock allowing
	return tc(ctx, "-n", m.lab.switchNS(), "qdisc", "replace", "dev", m.tap, "root", "tbf", "rate", fmt.Sprintf("%dbit", bitsPerSecond),
		"burst", fmt.Sprint(burst), "latency", "100ms")
}

// BootFile is what a DHCP server tells a machine that boots to load: file name and server (RFC 2131 §2, "file" and "siaddr").
type BootFile struct {
	Name   string     // "undionly.kpxe"
	Server netip.Addr // zero means the appliance
}

// option returns the line of dnsmasq's configuration, "" for none.
func (b BootFile) option() string {
	if b.Name == "" {
		return ""
	}
	server := b.Server
	if !server.IsValid() {
		server = ApplianceAddr
	}
	return fmt.Sprintf("dhcp-boot=%s,,%s\n", b.Name, server)
}

func tc(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "tc", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("tc %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
