package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
)

// Waits of the DHCP client. RFC 2131 §4.1 begins at 4 s; a machine that is to be imaged has no time for that, and a lost
// packet is what it waits for.
const (
	answerWait = 2 * time.Second  // for one answer
	retryWait  = 1 * time.Second  // between two rounds
	shortest   = 10 * time.Second // between two renewals, however short the lease
)

// client keeps the address of one NIC.
type client struct {
	n    *Network
	nic  *nic
	name string
	addr *netlink.Addr // what is configured now
}

func newClient(n *Network, c *nic) *client {
	return &client{n: n, nic: c, name: c.link.Attrs().Name}
}

// run asks for an address until it has one, renews it at half its time (RFC 2131 §4.4.5), and asks anew when the server
// does not know it any more.
func (c *client) run(ctx context.Context) {
	var lease *nclient4.Lease
	for ctx.Err() == nil {
		next, err := c.ask(ctx, lease)
		if err != nil {
			c.n.cfg.Log.Debug("no DHCP lease", "nic", c.name, "err", err)
			if !wait(ctx, retryWait) {
				return
			}
			lease = nil
			continue
		}
		lease = next
		if err := c.configure(lease.ACK); err != nil {
			c.n.cfg.Log.Warn("lease not configured", "nic", c.name, "err", err)
			lease = nil
			if !wait(ctx, retryWait) {
				return
			}
			continue
		}
		if !wait(ctx, max(shortest, lease.ACK.IPAddressLeaseTime(time.Hour)/2)) {
			return
		}
	}
}

// wait returns false if ctx ended before.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// ask gets a new lease, or renews one. The client identifier is the one that iPXE sends, so that a server gives the
// address of the boot again.
func (c *client) ask(ctx context.Context, old *nclient4.Lease) (*nclient4.Lease, error) {
	mac := c.nic.link.Attrs().HardwareAddr
	dhcp, err := nclient4.New(c.name, nclient4.WithTimeout(answerWait), nclient4.WithRetry(2), nclient4.WithHWAddr(mac))
	if err != nil {
		return nil, err
	}
	defer dhcp.Close()
	mods := []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("seedbed-agent")),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, mac...))), // RFC 2132 §9.14: type, then address
	}
	if old != nil {
		return dhcp.Renew(ctx, old, mods...)
	}
	return dhcp.Request(ctx, mods...)
}

// configure puts address and default route on the link.
func (c *client) configure(ack *dhcpv4.DHCPv4) error {
	mask := ack.SubnetMask()
	if mask == nil {
		mask = ack.YourIPAddr.DefaultMask()
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ack.YourIPAddr.To4(), Mask: mask}}
	if addr.IP == nil || addr.IP.IsUnspecified() {
		return fmt.Errorf("the DHCP server's answer has no address")
	}
	if c.addr != nil && !c.addr.Equal(*addr) {
		_ = netlink.AddrDel(c.nic.link, c.addr) // it may be gone already
	}
	if err := netlink.AddrReplace(c.nic.link, addr); err != nil {
		return fmt.Errorf("set address %s on %s: %w", addr.IPNet, c.name, err)
	}
	c.addr = addr
	ip, _ := netip.AddrFromSlice(addr.IP)
	ones, _ := mask.Size()
	lease := Lease{NIC: c.name, MAC: c.nic.link.Attrs().HardwareAddr.String(), Prefix: netip.PrefixFrom(ip, ones), Wait: time.Since(c.nic.up)}
	if s, ok := netip.AddrFromSlice(ack.ServerIdentifier().To4()); ok {
		lease.Server = s
	}
	if routers := ack.Router(); len(routers) > 0 {
		lease.Router, _ = netip.AddrFromSlice(routers[0].To4())
		route := &netlink.Route{LinkIndex: c.nic.link.Attrs().Index, Gw: routers[0], Priority: c.n.metric(lease.MAC, c.nic.link.Attrs().Index)}
		if err := netlink.RouteReplace(route); err != nil {
			c.n.cfg.Log.Warn("no route to the router", "nic", c.name, "router", routers[0].String(), "err", err)
		}
	}
	c.n.cfg.Log.Info("address", "nic", c.name, "prefix", lease.Prefix.String(), "server", lease.Server.String(),
		"wait", lease.Wait.Round(time.Millisecond))
	c.n.set(lease)
	return nil
}

// metric returns the priority of a link's default route, the lowest of which counts: the appliance is known to be behind
// the boot NIC's router, and of no other.
func (n *Network) metric(mac string, index int) int {
	if mac == n.cfg.BootMAC {
		return 1
	}
	return 100 + index
}
