package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// netPlan says which stations there are and how they are joined. Rates are in Mbit/s.
type netPlan struct {
	// switches stand in a row, each joined with the next by an uplink of the rate; one needs none.
	switches int
	uplink   float64
	stations []stationPlan
	// loopback puts so many stations on one computer in place of all that, unshaped.
	loopback int
}

// stationPlan is a computer: its links, the first being eth0.
type stationPlan []portPlan

// portPlan is a link to a switch, counted from 0, of the rate in each direction.
type portPlan struct {
	toSwitch int
	rate     float64
}

// network is a netPlan that was built, in network namespaces of its own: one holds the switches, and one each station. Every
// link is shaped at both of its ends. Link k of all stations lies in the subnet 10.(79+k).0.0/16.
type network struct {
	plan       netPlan
	namespaces []string // the first holds the switches
	stations   []station
}

// station is a computer of a network.
type station struct {
	namespace string
	addresses []netip.Addr // by link
}

// The shaper's bucket and the longest wait in its queue: a bucket above 64 KiB lets segments pass that the kernel cuts later.
const (
	shaperBurst   = "128kb"
	shaperLatency = "40ms"
)

// congestionControl is what all TCP connections of all contenders use. It is set by the route, since a namespace may choose
// no other default than those that any user may.
const congestionControl = "cubic"

// build makes the network; close removes it, also after an error.
func (p netPlan) build(ctx context.Context) (n *network, err error) {
	name := networkName()
	n = &network{plan: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if p.loopback > 0 {
		return n, n.buildLoopback(ctx, name)
	}
	var switches, shapers batch
	for b := range p.switches {
		switches.add("link add br%d type bridge forward_delay 0 stp_state 0 mcast_snooping 0", b)
		switches.add("link set br%d up", b)
		if b > 0 {
			switches.add("link add up%d type veth peer name down%d", b, b)
			switches.add("link set up%d master br%d up", b, b)
			switches.add("link set down%d master br%d up", b, b-1)
			shapers.shape(fmt.Sprintf("up%d", b), p.uplink)
			shapers.shape(fmt.Sprintf("down%d", b), p.uplink)
		}
	}
	if err := n.add(ctx, name); err != nil {
		return n, err
	}
	for i, ports := range p.stations {
		if err := n.add(ctx, fmt.Sprintf("%s-%d", name, i)); err != nil {
			return n, err
		}
		s := station{namespace: n.namespaces[i+1]}
		for k, port := range ports {
			far := fmt.Sprintf("p%dx%d", i, k)
			switches.add("link add %s type veth peer name eth%d netns %s", far, k, s.namespace)
			switches.add("link set %s master br%d up", far, port.toSwitch)
			shapers.shape(far, port.rate)
			s.addresses = append(s.addresses, netip.AddrFrom4([4]byte{10, byte(79 + k), byte(i >> 8), byte(i&0xff + 1)}))
		}
		n.stations = append(n.stations, s)
	}
	if err := errors.Join(switches.run(ctx, "ip", name), shapers.run(ctx, "tc", name)); err != nil {
		return n, err
	}
	for i, s := range n.stations {
		var ip, tc batch
		ip.add("link set lo up")
		for k, a := range s.addresses {
			ip.add("addr add %s/16 broadcast + dev eth%d", a, k)
			ip.add("link set eth%d up", k)
			ip.add("route replace 10.%d.0.0/16 dev eth%d src %s congctl %s", 79+k, k, a, congestionControl)
			tc.shape(fmt.Sprintf("eth%d", k), p.stations[i][k].rate)
		}
		ip.add("route add 224.0.0.0/4 dev eth0") // udpcast
		if err := errors.Join(ip.run(ctx, "ip", s.namespace), tc.run(ctx, "tc", s.namespace)); err != nil {
			return n, err
		}
	}
	return n, nil
}

// buildLoopback makes stations of one namespace.
func (n *network) buildLoopback(ctx context.Context, name string) error {
	if err := n.add(ctx, name); err != nil {
		return err
	}
	for i := range n.plan.loopback {
		n.stations = append(n.stations, station{name, []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)})}})
	}
	var ip batch
	ip.add("link set lo up")
	// The route of one address is there beside that of the whole subnet.
	ip.add("route del local 127.0.0.1 dev lo table local")
	ip.add("route replace local 127.0.0.0/8 dev lo table local congctl %s", congestionControl)
	return ip.run(ctx, "ip", name)
}

// networkName begins the names of the namespaces of this process.
func networkName() string { return fmt.Sprintf("sbswarm%d", os.Getpid()) }

func (n *network) add(ctx context.Context, name string) error {
	n.namespaces = append(n.namespaces, name) // first: an interrupt may come in the middle
	return tool(ctx, "iproute2", "ip", "netns", "add", name)
}

// close removes the namespaces. What runs in them has ended.
func (n *network) close() (err error) {
	for _, ns := range n.namespaces {
		if _, gone := os.Stat(filepath.Join("/run/netns", ns)); os.IsNotExist(gone) {
			continue
		}
		err = errors.Join(err, tool(context.Background(), "iproute2", "ip", "netns", "del", ns))
	}
	n.namespaces = nil
	return err
}

// batch is a list of commands of ip or tc.
type batch strings.Builder

func (b *batch) add(format string, args ...any) {
	fmt.Fprintf((*strings.Builder)(b), format+"\n", args...)
}

// shape limits what leaves a link's end.
func (b *batch) shape(device string, rate float64) {
	b.add("qdisc add dev %s root tbf rate %dkbit burst %s latency %s", device, int(1000*rate), shaperBurst, shaperLatency)
}

func (b *batch) run(ctx context.Context, name, namespace string) error {
	text := (*strings.Builder)(b).String()
	if text == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, name, "-n", namespace, "-batch", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s in %s (Debian: apt install iproute2): %w: %s", name, namespace, err, out)
	}
	return nil
}

// sent returns the bytes that left station i, Ethernet headers included, as the kernel counts them at its interfaces.
func (n *network) sent(ctx context.Context, i int) (total int64, err error) {
	if n.plan.loopback > 0 {
		return 0, nil // one interface for all
	}
	for k := range n.stations[i].addresses {
		c, err := counters(ctx, n.stations[i].namespace, fmt.Sprintf("eth%d", k))
		if err != nil {
			return 0, err
		}
		total += c.Tx.Bytes
	}
	return total, nil
}

// uplink returns the bytes that went down the row of switches over the uplink between switches b-1 and b, and up.
func (n *network) uplink(ctx context.Context, b int) (down, up int64, err error) {
	c, err := counters(ctx, n.namespaces[0], fmt.Sprintf("down%d", b))
	return c.Tx.Bytes, c.Rx.Bytes, err
}

// linkCounters are what the kernel counts of an interface.
type linkCounters struct {
	Rx, Tx struct{ Bytes, Packets int64 }
}

func counters(ctx context.Context, namespace, device string) (c linkCounters, err error) {
	out, err := exec.CommandContext(ctx, "ip", "-n", namespace, "-s", "-j", "link", "show", "dev", device).Output()
	if err != nil {
		return c, fmt.Errorf("counters of %s in %s: %w", device, namespace, err)
	}
	var list []struct{ Stats64 linkCounters }
	if err := json.Unmarshal(out, &list); err != nil || len(list) != 1 {
		return c, fmt.Errorf("counters of %s in %s: %w: %s", device, namespace, err, out)
	}
	return list[0].Stats64, nil
}

// sweep removes the networks and the folders of this program where it was killed: their names carry its process ID.
func sweep(ctx context.Context, scratch string) (err error) {
	gone := func(name, prefix string) bool {
		digits, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(name), prefix), "-")
		pid, bad := strconv.Atoi(digits)
		_, there := os.Stat(fmt.Sprintf("/proc/%d", pid))
		return bad == nil && os.IsNotExist(there)
	}
	networks, _ := filepath.Glob("/run/netns/sbswarm*")
	for _, path := range networks {
		if gone(path, "sbswarm") {
			err = errors.Join(err, tool(ctx, "iproute2", "ip", "netns", "del", filepath.Base(path)))
		}
	}
	folders, _ := filepath.Glob(filepath.Join(scratch, "seedbed-swarmbench-*"))
	for _, path := range folders {
		if gone(path, "seedbed-swarmbench-") {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}
