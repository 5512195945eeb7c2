package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// startDHCP starts the customer's own DHCP server, which knows nothing of booting but a file, if there is one. It also advertises an IPv6 router:
// without one, iPXE waits 13 s in every configuration of a NIC.
func (l *Lab) startDHCP(ctx context.Context, boot BootFile) error {
	file := filepath.Join(l.Dir, "dhcp.conf")
	text := fmt.Sprintf(`port=0
interface=eth0
bind-interfaces
except-interface=lo
log-dhcp
log-facility=%s
dhcp-range=10.77.0.100,10.77.0.200,255.255.255.0,1h
dhcp-leasefile=%s
dhcp-range=fd77::,ra-only,64,1h
ra-param=eth0,4,0
no-ping
user=root
group=root
%s`, filepath.Join(l.Dir, "dhcp.log"), filepath.Join(l.Dir, "dhcp.leases"), boot.option())
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	out := new(tail)
	p, err := l.runIn(l.dhcpNS(), nil, out, "dnsmasq", "--keep-in-foreground", "--conf-file="+file, "--pid-file=")
	if err != nil {
		return err
	}
	return l.waitSocket(ctx, p, out, l.dhcpNS(), 67)
}

// waitSocket waits until a UDP socket is bound to the port in the namespace.
func (l *Lab) waitSocket(ctx context.Context, p *Process, out *tail, ns string, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := exec.CommandContext(ctx, "ip", "netns", "exec", ns, "ss", "-Hlun", fmt.Sprintf("sport = :%d", port)).Output()
		if err == nil && len(found) > 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.Done():
			return fmt.Errorf("lab: %s ended: %w: %s", p.name, p.Err(), out)
		case <-ctx.Done():
			return fmt.Errorf("lab: %s did not open UDP port %d: %s: %w", p.name, port, out, ctx.Err())
		}
	}
}
