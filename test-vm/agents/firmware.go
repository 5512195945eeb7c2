package agents

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// maxFile bounds what the firmware fetches, in bytes.
const maxFile = 64 << 20

// firmware does what a network boot does as far as the appliance sees it, and returns the script that the loader gets. Its
// packets come as through a relay at the machine's own address, so that answers find it.
func (m *machine) firmware(ctx context.Context) (script string, err error) {
	var offer *dhcpv4.DHCPv4
	for wait := time.Second; offer == nil; wait = min(2*wait, 8*time.Second) { // as firmware repeats itself (PXE 2.1 §2.2.4)
		if offer, err = m.exchange(wait); err != nil && ctx.Err() != nil {
			return "", err
		}
	}
	base := "http://" + m.Appliance.String()
	path := strings.TrimPrefix(offer.BootFileNameOption()+strings.Trim(offer.BootFileName, "\x00"), base)
	path, _, _ = strings.Cut(path, "http://")
	b, err := m.fetch(ctx, path)
	return string(b), err
}

// exchange asks once by DHCP.
func (m *machine) exchange(wait time.Duration) (*dhcpv4.DHCPv4, error) {
	mac, err := net.ParseMAC(m.story.MAC)
	if err != nil {
		return nil, err
	}
	own := net.IP(m.own.AsSlice())
	discover, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(own)),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithGeneric(dhcpv4.OptionUserClassInformation, []byte("iPXE")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 0}))
	if err != nil {
		return nil, err
	}
	discover.GatewayIPAddr = own
	shared := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) })
	}}
	conn, err := shared.ListenPacket(context.Background(), "udp4", net.JoinHostPort(m.own.String(), "67"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	if _, err := conn.WriteTo(discover.ToBytes(), &net.UDPAddr{IP: m.Appliance.AsSlice(), Port: 67}); err != nil {
		return nil, err
	}
	buf := make([]byte, 1500)
	n, _, err := conn.ReadFrom(buf)
	if err != nil {
		return nil, err
	}
	return dhcpv4.FromBytes(buf[:n])
}

// fetch gets a boot file as a loader does.
func (m *machine) fetch(ctx context.Context, path string) ([]byte, error) {
	transport := &http.Transport{DialContext: m.dialer().DialContext, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.Appliance.String()+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxFile))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.200s", path, resp.Status, b)
	}
	return b, err
}

// load boots the agent from the network.
func (m *machine) load(ctx context.Context) error {
	script, err := m.firmware(ctx)
	if err != nil {
		return err
	}
	if !strings.Contains(script, "/boot/token") {
		return fmt.Errorf("the machine does not boot the agent:\n%s", script)
	}
	if _, err := m.fetch(ctx, "/boot/vmlinuz"); err != nil {
		return err
	}
	archive, err := m.fetch(ctx, "/boot/token?mac="+m.story.MAC)
	if err != nil {
		return err
	}
	from, to := bytes.IndexByte(archive, '{'), bytes.LastIndexByte(archive, '}')
	if from < 0 || to < from {
		return fmt.Errorf("the second initrd holds no boot file")
	}
	return json.Unmarshal(archive[from:to+1], &m.boot)
}
