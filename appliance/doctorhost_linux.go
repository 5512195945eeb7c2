package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"seedbed/appliance/boot"
	"seedbed/appliance/configuration"
	"seedbed/appliance/dhcp"
	"seedbed/appliance/doctor"
	"seedbed/appliance/tftp"
	"seedbed/images/repository"
)

func (d *examination) lookData(_ context.Context, n *doctor.Notes) { d.checking(n).data() }

// wantedPort is a port that an appliance listens on.
type wantedPort struct {
	network string
	number  uint16
	address netip.Addr // unspecified: all of the host's
	what    string
	setting string // the flag that names another one, "" where the protocol fixes it
}

func (p wantedPort) String() string { return fmt.Sprintf("%s %d (%s)", p.network, p.number, p.what) }

// wantedPorts are the ports of the appliance; those that the system chooses are left out.
func (d *examination) wantedPorts() (list []wantedPort, err error) {
	c := &d.c
	var own netip.Addr
	if c.Interface != "" {
		if own, err = ownAddress(*c); err != nil {
			return nil, err
		}
	}
	add := func(network, listen, what, setting string) {
		host, service, splitErr := net.SplitHostPort(listen)
		number, portErr := net.LookupPort(network, service)
		if e := errors.Join(splitErr, portErr); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", setting, e))
			return
		}
		p := wantedPort{network: network, number: uint16(number), address: own, what: what, setting: setting}
		if host != "" {
			p.address, _ = netip.ParseAddr(host) // a name is taken for all addresses
		}
		if number != 0 {
			list = append(list, p)
		}
	}
	add("tcp", or(c.HTTPS, ":443"), "agents", "--https")
	add("tcp", or(c.Swarm, ":6881"), "swarm", "--swarm")
	if !c.NoBoot {
		add("tcp", or(c.HTTP, ":80"), "boot files", "--http")
		list = append(list, wantedPort{"udp", tftp.Port, own, "TFTP", ""})
	}
	if !c.NoBoot && !c.NoDHCP {
		list = append(list, wantedPort{"udp", dhcp.PortServer, netip.Addr{}, "DHCP", ""}, wantedPort{"udp", dhcp.PortProxy, netip.Addr{}, "proxy-DHCP", ""})
	}
	return list, err
}

func (d *examination) lookPorts(_ context.Context, n *doctor.Notes) {
	if d.service.pid != 0 && !sameNetwork(d.service.pid) {
		n.Warning(fmt.Sprintf("ask there: `nsenter -t %d -n seedbed doctor`", d.service.pid), "the appliance runs in another network namespace; ports and interfaces are those of this one")
		return
	}
	ports, err := d.wantedPorts()
	if err != nil {
		n.Wrong("mend the address, as in :443 or 10.77.0.1:443", "%v", err)
	}
	var numbers []uint16
	for _, p := range ports {
		numbers = append(numbers, p.number)
	}
	holders, err := doctor.Holders(numbers...)
	if err != nil {
		n.Wrong("", "%v", err)
		return
	}
	for _, p := range ports {
		d.judgePort(n, p, holders)
	}
}

// judgePort says whether the appliance has a port, or who else has it.
func (d *examination) judgePort(n *doctor.Notes, p wantedPort, holders []doctor.Holder) {
	own, unknown := false, false
	var others []string
	for _, h := range holders {
		if h.Network != p.network || h.Port != p.number || !h.Meets(p.address) {
			continue
		}
		switch {
		case h.PID != 0 && h.PID == d.service.pid:
			own = true
		case d.service.runs && (h.PID == 0 || d.service.pid == 0):
			unknown = true
		case !slices.Contains(others, h.String()):
			others = append(others, h.String())
		}
	}
	another := "stop it, or have it listen elsewhere"
	if p.setting != "" {
		another = "stop it, or choose another port with " + p.setting
	}
	switch who := strings.Join(others, ", "); {
	case own && who != "":
		n.Warning("packets to this host alone reach one of the two: run the other on another host, or stop it",
			"%s: this appliance has it, and so has %s", p, who)
	case own:
		n.OK("%s: this appliance has it", p)
	case who != "":
		n.Wrong(another, "%s: %s has it, not the appliance", p, who)
	case unknown:
		n.OK("%s: somebody has it, whom root may see", p)
	case d.service.runs:
		n.Wrong("give doctor the flags that the appliance was started with; if they are these, restart it", "%s: nobody listens, though the appliance runs", p)
	default:
		n.OK("%s: free", p)
	}
}

// sameNetwork reports whether a process is in the network namespace of this one; so it is taken where that may not be seen.
func sameNetwork(pid int) bool {
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	own, ownErr := os.Readlink("/proc/self/ns/net")
	return err != nil || ownErr != nil || theirs == own
}

// served are the interfaces by which machines reach the appliance.
func (d *examination) served() ([]net.Interface, error) {
	if d.c.Interface != "" {
		nic, err := net.InterfaceByName(d.c.Interface)
		if err != nil {
			return nil, fmt.Errorf("--interface %s: %w", d.c.Interface, err)
		}
		return []net.Interface{*nic}, nil
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(nic net.Interface) bool {
		return nic.Flags&net.FlagLoopback != 0 || len(addressesOf(nic)) == 0
	}), nil
}

// addressesOf are the IPv4 addresses of an interface, without those of the link alone.
func addressesOf(nic net.Interface) (list []netip.Addr) {
	addrs, err := nic.Addrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLinkLocalUnicast() {
			list = append(list, p.Addr())
		}
	}
	return list
}

// lookNetwork looks at the interfaces that are served, and at the address that machines are told.
func (d *examination) lookNetwork(_ context.Context, n *doctor.Notes) {
	nics, err := d.served()
	if err != nil {
		n.Wrong("`ip link` lists the interfaces; mend --interface", "%v", err)
		return
	}
	for _, nic := range nics {
		d.lookInterface(n, nic, len(nics) == 1)
	}
	own, err := ownAddress(d.c)
	if err != nil {
		n.Wrong("`ip addr` lists addresses; give the interface one", "%v", err)
		return
	}
	all, err := net.Interfaces()
	if err != nil {
		n.Wrong("", "%v", err)
		return
	}
	for _, nic := range all {
		if slices.Contains(addressesOf(nic), own) {
			n.OK("machines reach the appliance at %s, on %s", own, nic.Name)
			return
		}
	}
	n.Wrong("give an address of this host with --address, or that address to an interface", "machines are told the address %s, which no interface of this host has", own)
}

// commonMTU is what every machine's firmware sends and takes (RFC 894).
const commonMTU = 1500

// lookInterface looks at one interface; without the only one no machine is reached.
func (d *examination) lookInterface(n *doctor.Notes, nic net.Interface, only bool) {
	bad := n.Warning
	if only {
		bad = n.Wrong
	}
	addrs := addressesOf(nic)
	switch {
	case nic.Flags&net.FlagUp == 0:
		bad(fmt.Sprintf("`ip link set %s up`", nic.Name), "interface %s is down", nic.Name)
	case nic.Flags&net.FlagRunning == 0:
		bad("look at its cable and at the port of the switch", "interface %s has no link", nic.Name)
	case len(addrs) == 0:
		bad("give it one of the machines' network", "interface %s has no IPv4 address", nic.Name)
	case nic.MTU < commonMTU:
		n.Warning(fmt.Sprintf("`ip link set %s mtu %d`, unless the network takes no more", nic.Name, commonMTU),
			"interface %s has an MTU of %d bytes, less than what machines send", nic.Name, nic.MTU)
	case nic.MTU > commonMTU && nic.Flags&net.FlagLoopback == 0:
		n.OK("interface %s: %v, link, MTU %d bytes, which all switches and machines of its network have to take", nic.Name, addrs, nic.MTU)
	default:
		n.OK("interface %s: %v, link, MTU %d bytes", nic.Name, addrs, nic.MTU)
	}
}

// probeFor is how long a DHCP server may take to answer: dnsmasq looks for 3 s whether an address is free.
const probeFor = 4 * time.Second

// lookDHCP asks each network who answers machines that boot.
func (d *examination) lookDHCP(ctx context.Context, n *doctor.Notes) {
	nics, err := d.served()
	if err != nil {
		n.Wrong("mend --interface", "%v", err)
		return
	}
	nics = slices.DeleteFunc(nics, func(nic net.Interface) bool {
		return nic.Flags&net.FlagBroadcast == 0 || len(nic.HardwareAddr) != 6 || nic.Flags&net.FlagRunning == 0
	})
	if len(nics) == 0 {
		n.Warning("", "no interface is served by which DHCP could be asked")
	}
	ours := d.ownBoots(ctx)
	offers, errs := make([][]dhcp.Offer, len(nics)), make([]error, len(nics))
	ctx, cancel := context.WithTimeout(ctx, probeFor)
	defer cancel()
	var asking sync.WaitGroup
	for i, nic := range nics {
		asking.Go(func() { offers[i], errs[i] = dhcp.Probe(ctx, nic.Name) })
	}
	asking.Wait()
	for i, nic := range nics {
		if errs[i] != nil {
			n.Warning("ask as root", "%v", errs[i])
			continue
		}
		judgeOffers(n, nic.Name, offers[i], ours)
	}
}

// ownBoots are the addresses by which the site's appliances boot machines.
func (d *examination) ownBoots(ctx context.Context) (list []netip.Addr) {
	if own, err := ownAddress(d.c); err == nil {
		list = append(list, own)
	}
	for _, a := range d.appliances(ctx) {
		if a.Boot.IsValid() {
			list = append(list, a.Boot.Addr())
		}
	}
	return list
}

// judgeOffers says who answers machines on an interface.
func judgeOffers(n *doctor.Notes, nic string, offers []dhcp.Offer, ours []netip.Addr) {
	addresses := false
	for _, o := range offers {
		gives := "no address"
		if o.Address.IsValid() {
			gives, addresses = "the address "+o.Address.String(), true
		}
		switch {
		case slices.Contains(ours, o.Server):
			n.OK("%s: %s, an appliance of this site, answers machines that boot", nic, o.Server)
		case o.PXE:
			n.Wrong("machines take either answer: take boot options (next-server, filename, options 43, 60, 66, 67; dnsmasq: dhcp-boot, pxe-service) out of it, or serve other networks",
				"%s: %s answers machines that boot, and is no appliance of this site: file %q, host %q, %s", nic, o.Server, o.File, o.Next, gives)
		default:
			n.OK("%s: %s gives %s, and tells nothing about booting", nic, o.Server, gives)
		}
	}
	if !addresses {
		n.Warning("machines need an address before they hear the appliance: start a DHCP server on this network, or have a relay forward to one; one on this very host does not hear the question",
			"%s: nobody gives addresses", nic)
	}
}

func (d *examination) lookBootFiles(_ context.Context, n *doctor.Notes) {
	dir := or(d.c.BootDir, filepath.Join(d.c.Data, "boot"))
	if _, err := os.Stat(dir); err != nil && notForUs(n, err) {
		return
	}
	for _, w := range boot.Ways(dir) {
		if w.Wrong != "" {
			n.Wrong("", "%s: machines do not get to the agent: %s", w.Name, w.Wrong)
		} else {
			n.OK("%s: all in %s", w.Name, dir)
		}
	}
}

// leastRoom is what records, journals and logs need to be written at all, in bytes.
const leastRoom = 64 << 20

// lookRoom looks at what is free for data and images.
func (d *examination) lookRoom(ctx context.Context, n *doctor.Notes) {
	d.lookRoomIn(n, "data folder", d.c.Data, 0, "")
	folder := d.folder()
	if folder == "" {
		n.OK("repository %s: storage does not tell what is free", withoutPassword(d.c.Repository))
		return
	}
	largest, name := int64(0), ""
	for _, i := range d.images(ctx) {
		if i.EncodedLength > largest {
			largest, name = i.EncodedLength, i.Name+":"+i.Version
		}
	}
	d.lookRoomIn(n, "repository", folder, largest, name)
}

// lookRoomIn looks at the file system of one folder. wants is what one more image takes, if it shares nothing with the others.
func (d *examination) lookRoomIn(n *doctor.Notes, what, dir string, wants int64, like string) {
	free, total, err := repository.RoomIn(dir)
	if errors.Is(err, fs.ErrNotExist) {
		n.OK("%s: %s is not there yet", what, dir)
		return
	}
	if err != nil && notForUs(n, err) {
		return
	}
	if err != nil {
		n.Wrong("", "%s %s: %v", what, dir, err)
		return
	}
	room := fmt.Sprintf("%s %s: %s of %s are free", what, dir, bytesText(free), bytesText(total))
	const remedy = "make room: `seedbed image ls`, `seedbed image rm NAME:VERSION` and `seedbed image prune`, or a larger disk"
	switch {
	case free < leastRoom:
		n.Wrong(remedy, "%s, which is less than the %s that the appliance needs to write at all", room, bytesText(leastRoom))
	case free < wants:
		n.Warning(remedy, "%s, too little for one more image like %s (%s)", room, like, bytesText(wants))
	case wants > 0:
		n.OK("%s; one more image like the largest, %s, takes %s at most", room, like, bytesText(wants))
	default:
		n.OK("%s", room)
	}
}

// folder is that of the images, "" where they are in object storage.
func (d *examination) folder() string {
	a := appliance{config: d.c}
	return a.folder()
}

// lookSecrets looks at the modes of files that hold secrets.
func (d *examination) lookSecrets(_ context.Context, n *doctor.Notes) {
	paths := []string{d.c.RecordsPassword, d.c.TLSKey, d.c.MailPassword, d.c.WebhookSecret}
	for _, pattern := range []string{"site/*.key*", "records.db*", "seedbed.sock"} {
		found, err := filepath.Glob(filepath.Join(d.c.Data, pattern))
		if err != nil {
			n.Wrong("", "%v", err)
		}
		paths = append(paths, found...)
	}
	if strings.HasPrefix(d.c.Repository, "s3://") {
		home, _ := os.UserHomeDir()
		paths = append(paths, or(os.Getenv("AWS_SHARED_CREDENTIALS_FILE"), filepath.Join(home, ".aws", "credentials")))
	}
	private := 0
	for _, path := range paths {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && info.Mode()&fs.ModeSocket != 0 {
			if info.Mode().Perm()&0o077 != 0 {
				n.Wrong("`chmod 600 "+path+"`", "%s: whoever can open it is root at the appliance, and others than its owner can (mode %04o)", path, info.Mode().Perm())
			} else {
				private++
			}
			continue
		}
		if err == nil {
			err = configuration.CheckSecret(path)
		}
		switch {
		case errors.Is(err, fs.ErrPermission): // not for this user: as it is to be
			private++
		case err != nil:
			n.Wrong("", "%v", err)
		default:
			private++
		}
	}
	if private > 0 || n.List == nil {
		n.OK("%d files with secrets are their owner's alone", private)
	}
}
