package swarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/time/rate"
)

// Transport says how a peer uses the network. The zero value sets no limits, marks nothing, uses cubic where the system
// has it, and leaves the choice of interfaces to the routes.
type Transport struct {
	// UploadLimit bounds the tile data that the peer sends, DownloadLimit all that it receives; PeerUploadLimit and
	// PeerDownloadLimit do the same for each link. Bytes a second with the headers of TLS, TCP and IP that they take; at least
	// MinLimit, or 0 for none. Short messages are never held back, they go out between two tiles.
	UploadLimit, DownloadLimit         int64
	PeerUploadLimit, PeerDownloadLimit int64
	// Shared are limits that several swarms keep together, beside this peer's own.
	Shared *Limits
	// DSCP marks the packets (RFC 2474), 0 to 63; 8 is CS1, 10 AF11. Linux only, unless 0.
	DSCP int
	// Congestion names TCP's congestion control: "cubic", "bbr"; empty is cubic. Where the kernel does not have it the
	// system's own is used, and reported by Stats. Linux only, unless empty.
	Congestion string
	// Interfaces are names of network interfaces, each of which gets a set of links and a peer ID of its own, as if it
	// were a machine: they have to be announced one by one, see Endpoints. Empty is one set, over whichever interface the
	// routes choose. Linux only, unless empty.
	Interfaces []string
}

// DefaultCongestion is the congestion control of links where Transport names none: what was measured with.
const DefaultCongestion = "cubic"

// Check returns an error that names the first setting which is out of bounds, or not to be had on this system.
func (t Transport) Check() error {
	for name, limit := range map[string]int64{
		"UploadLimit": t.UploadLimit, "DownloadLimit": t.DownloadLimit,
		"PeerUploadLimit": t.PeerUploadLimit, "PeerDownloadLimit": t.PeerDownloadLimit,
	} {
		if limit < 0 || limit > 0 && limit < MinLimit {
			return fmt.Errorf("swarm: %s of %d bytes a second, want 0 for none or at least %d", name, limit, MinLimit)
		}
	}
	if t.DSCP < 0 || t.DSCP > 63 {
		return fmt.Errorf("swarm: DSCP %d, want 0 to 63", t.DSCP)
	}
	for i, name := range t.Interfaces {
		if name == "" || slices.Contains(t.Interfaces[:i], name) {
			return fmt.Errorf("swarm: interface %q is named twice, or not at all", name)
		}
	}
	return t.checkSystem()
}

// congestion is what the sockets are to use.
func (t Transport) congestion() string {
	if t.Congestion == "" {
		return DefaultCongestion
	}
	return t.Congestion
}

// Listen opens a TCP port for a swarm or a Mux; what it accepts is marked and controlled as Transport says.
func (t Transport) Listen(address string) (net.Listener, error) { return t.ListenOn("", address) }

// ListenOn is Listen on one network interface; "" is Listen.
func (t Transport) ListenOn(device, address string) (net.Listener, error) {
	if err := t.Check(); err != nil {
		return nil, err
	}
	var c net.ListenConfig
	c.Control = func(_, _ string, raw syscall.RawConn) error { return t.prepare(device, raw) }
	return c.Listen(context.Background(), "tcp", address)
}

// Dialer returns a dialer whose connections use the interface, or any for "", and are marked and controlled as Transport
// says: what announces an Endpoint has to dial from it.
func (t Transport) Dialer(device string) *net.Dialer {
	return &net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { return t.prepare(device, raw) }}
}

// Endpoint is one of the faces that a peer shows to others; most have one.
type Endpoint struct {
	Interface string // empty: whichever the routes choose
	PeerID    [20]byte
	Addr      netip.AddrPort // that it listens on; zero when it only dials
}

// TransportStats count the links of one Endpoint.
type TransportStats struct {
	Interface string
	// Congestion is the congestion control in use, as the kernel names it; empty before the first link and where the
	// system does not tell.
	Congestion string
	DSCP       int
	Links      int // open now
	// Sent and Received are bytes of messages over all links so far, without TLS, TCP and IP.
	Sent, Received int64
}

// endpoint is an Endpoint at work. The first group is immutable after New.
type endpoint struct {
	index  int
	device string
	peerID [20]byte
	mux    *Mux // nil if it only dials
	ownMux bool
	at     []netip.AddrPort // where the interface's addresses make it reachable, as far as they were known

	congestion     atomic.Pointer[string]
	links          atomic.Int64
	sent, received atomic.Int64
}

// network is what all links of a peer share.
type network struct {
	transport Transport
	ends      []*endpoint
	up, down  *rate.Limiter
	log       *slog.Logger
	refused   sync.Once // the kernel's refusal was logged
}

// openNetwork opens the peer's ports.
func openNetwork(c Config) (_ *network, err error) {
	t := c.Transport
	n := &network{transport: t, up: newBucket(t.UploadLimit), down: newBucket(t.DownloadLimit), log: c.Log}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if len(t.Interfaces) == 0 {
		if c.Muxes != nil {
			return nil, errors.New("swarm: Muxes are of Transport.Interfaces, and there are none: set Mux")
		}
		e := &endpoint{peerID: c.PeerID, mux: c.Mux}
		n.ends = []*endpoint{e}
		if c.Mux == nil && (c.Listener != nil || c.ListenAddr != "") {
			l := c.Listener
			if l == nil {
				if l, err = t.Listen(c.ListenAddr); err != nil {
					return nil, fmt.Errorf("swarm: %w", err)
				}
			}
			e.mux, e.ownMux = NewMux(l, c.Log), true
		}
		return n, nil
	}
	if c.Mux != nil || c.Listener != nil || c.Muxes != nil && len(c.Muxes) != len(t.Interfaces) {
		return nil, errors.New("swarm: with Transport.Interfaces each has a listener of its own: Mux and Listener must be nil, Muxes nil or one for each")
	}
	for i, name := range t.Interfaces {
		nic, err := net.InterfaceByName(name)
		if err != nil {
			return nil, fmt.Errorf("swarm: interface %s: %w", name, err)
		}
		e := &endpoint{index: i, device: name, peerID: c.PeerID}
		if i > 0 {
			e.peerID = newPeerID()
		}
		switch {
		case c.Muxes != nil:
			e.mux = c.Muxes[i]
			e.at = addressesOf(nic, e.mux.Addr().Port())
		case c.ListenAddr != "":
			l, err := t.ListenOn(name, c.ListenAddr)
			if err != nil {
				return nil, fmt.Errorf("swarm: interface %s: %w", name, err)
			}
			e.mux, e.ownMux = NewMux(l, c.Log), true
			e.at = addressesOf(nic, e.mux.Addr().Port())
		}
		n.ends = append(n.ends, e)
	}
	return n, nil
}

// addressesOf returns what others know a port on an interface by.
func addressesOf(nic *net.Interface, port uint16) (list []netip.AddrPort) {
	addrs, err := nic.Addrs()
	if err != nil {
		return nil // we would dial ourselves, and notice
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			list = append(list, netip.AddrPortFrom(p.Addr(), port))
		}
	}
	return list
}

// close gives the listeners back that are the peer's own.
func (n *network) close() (err error) {
	for _, e := range n.ends {
		if e.ownMux {
			err = errors.Join(err, e.mux.Close())
		}
	}
	return err
}

// own reports whether a peer ID is one of ours.
func (n *network) own(id [20]byte) bool {
	return slices.ContainsFunc(n.ends, func(e *endpoint) bool { return e.peerID == id })
}

// joined prepares the socket of a link and notes what the kernel made of it.
func (n *network) joined(e *endpoint, conn net.Conn) {
	for below, ok := conn.(session); ok; below, ok = conn.(session) {
		conn = below.NetConn()
	}
	c, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	if err := n.transport.prepare("", raw); err != nil {
		n.log.Debug("socket options not set", "peer", conn.RemoteAddr().String(), "err", err)
	}
	used := congestionOf(raw)
	if used == "" {
		return
	}
	e.congestion.Store(&used)
	if want := n.transport.Congestion; want != "" && used != want {
		n.refused.Do(func() {
			n.log.Warn("the kernel does not give the congestion control asked for; the system's is used", "asked", want, "used", used)
		})
	}
}

// pacers returns what the two directions of a new link wait for.
func (n *network) pacers() (up, down pacer) {
	t := &n.transport
	shared := t.Shared
	if shared == nil {
		shared = &Limits{}
	}
	return newPacer(newBucket(t.PeerUploadLimit), n.up, shared.up), newPacer(newBucket(t.PeerDownloadLimit), n.down, shared.down)
}

// uploadLimits returns the lowest limit of all that is sent, and that of what is sent on each link, in bytes a second; 0 is none.
func (n *network) uploadLimits() (total, each float64) {
	all := []*rate.Limiter{n.up}
	if n.transport.Shared != nil {
		all = append(all, n.transport.Shared.up)
	}
	for _, b := range all {
		if b != nil && (total == 0 || float64(b.Limit()) < total) {
			total = float64(b.Limit())
		}
	}
	return total, float64(n.transport.PeerUploadLimit)
}

func (n *network) stats() (list []TransportStats) {
	for _, e := range n.ends {
		s := TransportStats{Interface: e.device, DSCP: n.transport.DSCP, Links: int(e.links.Load()), Sent: e.sent.Load(), Received: e.received.Load()}
		if used := e.congestion.Load(); used != nil {
			s.Congestion = *used
		}
		list = append(list, s)
	}
	return list
}

// Endpoints returns the faces of the peer, in the order of Transport.Interfaces.
func (s *Swarm) Endpoints() (list []Endpoint) {
	for _, e := range s.net.ends {
		one := Endpoint{Interface: e.device, PeerID: e.peerID}
		if e.mux != nil {
			one.Addr = e.mux.Addr()
		}
		list = append(list, one)
	}
	return list
}
