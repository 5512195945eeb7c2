// Package network brings a machine's links up and keeps an address from DHCP on each.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"seedbed/appliance/job"
)

// Config says which links matter.
type Config struct {
	// BootMAC is the address of the NIC that the machine booted from: "52:54:00:77:00:10". Empty means any NIC will do.
	BootMAC string
	// Grace is how long a lease on another NIC waits for one on the boot NIC; zero means 20 s.
	Grace time.Duration
	// Log is told of links and leases (Info); nil discards.
	Log *slog.Logger
}

// Lease is an address that a DHCP server gave to a NIC.
type Lease struct {
	NIC    string // kernel name
	MAC    string
	Prefix netip.Prefix // address and length of the subnet
	Router netip.Addr   // the zero value if there is none
	Server netip.Addr   // the DHCP server
	// Wait is the time from the link's first signal to the answer: with a switch port that does not forward at once,
	// half a minute.
	Wait time.Duration
}

// Network keeps a machine's links. Safe for concurrent use.
type Network struct {
	cfg Config

	mu      sync.Mutex // guards everything below
	nics    map[string]*nic
	leases  []Lease
	changed chan struct{} // closed and replaced when leases or links change
}

// nic is one link that Run looks after.
type nic struct {
	link    netlink.Link
	running chan struct{} // closed at the first signal
	up      time.Time     // of that signal
	once    sync.Once
}

// New returns a Network that does nothing before Run.
func New(cfg Config) *Network {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Grace == 0 {
		cfg.Grace = 20 * time.Second
	}
	cfg.BootMAC = strings.ToLower(cfg.BootMAC)
	return &Network{cfg: cfg, nics: map[string]*nic{}, changed: make(chan struct{})}
}

// Run brings every Ethernet link up, also those that appear later, asks for an address on each as soon as it has a
// signal, and renews it. It returns when ctx ends, after everything that it started has.
func (n *Network) Run(ctx context.Context) error {
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	defer close(done)
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ListExisting: true,
		ErrorCallback: func(err error) { n.cfg.Log.Debug("link watch", "err", err) }})
	if err != nil {
		return fmt.Errorf("watch the links: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	for {
		select {
		case <-ctx.Done():
			if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		case u, ok := <-updates:
			if !ok {
				if err := g.Wait(); err != nil {
					return err
				}
				return errors.New("the kernel no longer tells of links")
			}
			n.see(ctx, g, u)
		}
	}
}

// see takes one change of a link.
func (n *Network) see(ctx context.Context, g *errgroup.Group, u netlink.LinkUpdate) {
	a := u.Link.Attrs()
	if u.Header.Type == unix.RTM_DELLINK || a.EncapType != "ether" || a.Flags&net.FlagLoopback != 0 {
		return
	}
	n.mu.Lock()
	c := n.nics[a.Name]
	if c == nil || c.link.Attrs().Index != a.Index {
		c = &nic{link: u.Link, running: make(chan struct{})}
		n.nics[a.Name] = c
		g.Go(func() error { return n.keep(ctx, c) })
	}
	n.mu.Unlock()
	if u.IfInfomsg.Flags&unix.IFF_RUNNING != 0 && u.IfInfomsg.Flags&unix.IFF_UP != 0 {
		c.once.Do(func() {
			c.up = time.Now()
			close(c.running)
			n.cfg.Log.Info("link has a signal", "nic", a.Name, "mac", a.HardwareAddr.String())
		})
	}
}

// keep brings one link up and keeps an address on it until ctx ends. Trouble with one link ends no other.
func (n *Network) keep(ctx context.Context, c *nic) error {
	name := c.link.Attrs().Name
	if err := netlink.LinkSetUp(c.link); err != nil {
		n.cfg.Log.Warn("link cannot be brought up", "nic", name, "err", err)
		return nil
	}
	select {
	case <-c.running:
	case <-ctx.Done():
		return nil
	}
	newClient(n, c).run(ctx)
	return nil
}

// set notes the lease of a NIC.
func (n *Network) set(l Lease) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.leases {
		if n.leases[i].NIC == l.NIC {
			l.Wait = n.leases[i].Wait
			n.leases[i] = l
			return
		}
	}
	n.leases = append(n.leases, l)
	close(n.changed)
	n.changed = make(chan struct{})
}

// Leases returns the addresses that the machine has now.
func (n *Network) Leases() []Lease {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]Lease(nil), n.leases...)
}

// Wait returns when the boot NIC has an address, or another NIC has had one for the grace time. It returns early only
// with ctx's error.
func (n *Network) Wait(ctx context.Context) (Lease, error) {
	var grace <-chan time.Time
	var late bool
	for {
		n.mu.Lock()
		leases, changed := n.leases, n.changed
		n.mu.Unlock()
		for _, l := range leases {
			if n.cfg.BootMAC == "" || l.MAC == n.cfg.BootMAC || late {
				return l, nil
			}
		}
		if len(leases) > 0 && grace == nil {
			timer := time.NewTimer(n.cfg.Grace)
			defer timer.Stop()
			grace = timer.C
		}
		select {
		case <-changed:
		case <-grace:
			late = true
		case <-ctx.Done():
			return Lease{}, ctx.Err()
		}
	}
}

// Status says what the network waits for, in a word (job.LeftNoCard, job.LeftNoLink, job.LeftNoAddress) and in a sentence: for people,
// while Wait waits.
func (n *Network) Status() (code, sentence string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.nics) == 0 {
		return job.LeftNoCard, "no network card was found"
	}
	var silent, asking []string
	for name, c := range n.nics {
		label := name + " " + c.link.Attrs().HardwareAddr.String()
		select {
		case <-c.running:
			asking = append(asking, label)
		default:
			silent = append(silent, label)
		}
	}
	if len(asking) == 0 {
		return job.LeftNoLink, "no link on " + strings.Join(silent, ", ") + ": check the cable and the switch port"
	}
	return job.LeftNoAddress, "no DHCP answer yet on " + strings.Join(asking, ", ") +
		": a switch port may take 50 s to forward (spanning tree; set it to edge or PortFast)"
}

// HasBootCard reports whether the kernel has the network card that the machine booted from; where that is not known, whether it has any.
func (n *Network) HasBootCard() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.nics {
		if n.cfg.BootMAC == "" || c.link.Attrs().HardwareAddr.String() == n.cfg.BootMAC {
			return true
		}
	}
	return false
}
