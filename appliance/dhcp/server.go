package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"golang.org/x/net/ipv4"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Config says where a Server listens. The zero value listens on every interface, ports 67 and 4011.
type Config struct {
	// Interface is the only interface served, "eth0"; empty means every interface with an IPv4 address.
	Interface string
	// Addr is the appliance's address as machines should use it; invalid means the first one of the interface that a
	// packet came by.
	Addr netip.Addr
	// ServerPort and ProxyPort replace 67 and 4011 where they are not zero.
	ServerPort, ProxyPort int
	// AnswersAtOnce bounds the packets in work; what is above is dropped, as the machines repeat. Zero means 2,048:
	// a room that is switched on at once, while the records take their time. Each holds some 10 KB.
	AnswersAtOnce int
}

// Server answers machines. It is made by New, works in Run and is not for use after that.
type Server struct {
	cfg    Config
	answer Answerer
	log    *slog.Logger
	links  []*link

	mu     sync.Mutex // guards locals
	locals map[int]own
}

// own is the appliance's address on an interface, as it was at a time.
type own struct {
	addr netip.Addr
	at   time.Time
}

// link is one open port.
type link struct {
	port int // as the protocol knows it: 67 or 4011
	conn *ipv4.PacketConn
}

// New opens the ports. log may be nil.
func New(cfg Config, answer Answerer, log *slog.Logger) (*Server, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.AnswersAtOnce == 0 {
		cfg.AnswersAtOnce = 2048
	}
	s := &Server{cfg: cfg, answer: answer, log: log, locals: map[int]own{}}
	for _, p := range []struct{ protocol, chosen int }{{PortServer, cfg.ServerPort}, {PortProxy, cfg.ProxyPort}} {
		if p.chosen == 0 {
			p.chosen = p.protocol
		}
		conn, err := listen(cfg.Interface, p.chosen)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("listen for network boots on UDP port %d: %w", p.chosen, err)
		}
		s.links = append(s.links, &link{p.protocol, conn})
	}
	return s, nil
}

// listen opens one port for packets of the interface, broadcasts included. The address is the wildcard, since a socket
// bound to an address gets no broadcasts.
func listen(iface string, port int) (*ipv4.PacketConn, error) {
	udp, err := server4.NewIPv4UDPConn(iface, &net.UDPAddr{IP: net.IPv4zero, Port: port})
	if err != nil {
		return nil, err
	}
	if err := keepMany(udp); err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	conn := ipv4.NewPacketConn(udp)
	if err := conn.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true); err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	return conn, nil
}

// receiveBuffer is the room for packets that wait, in bytes: those of a room that is switched on at once. The kernel counts some 1,300
// for each; its default holds 160, and a machine whose packet was dropped asks again after 4 s.
const receiveBuffer = 4 << 20

// keepMany gives the socket its buffer; who is not root gets as much as net.core.rmem_max allows.
func keepMany(udp *net.UDPConn) error {
	raw, err := udp.SyscallConn()
	if err != nil {
		return err
	}
	forced := false
	err = raw.Control(func(fd uintptr) {
		forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) == nil
	})
	if err != nil || forced {
		return err
	}
	return udp.SetReadBuffer(receiveBuffer)
}

func (s *Server) close() {
	for _, l := range s.links {
		l.conn.Close()
	}
}

// Run answers until ctx ends, which is no error, or a port fails. It waits for the answers in work.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range s.links {
		g.Go(func() error { return s.read(ctx, l) })
	}
	g.Go(func() error {
		<-ctx.Done()
		s.close()
		return nil
	})
	return g.Wait()
}

// read takes packets from one port and gives each to a goroutine of its own.
func (s *Server) read(ctx context.Context, l *link) error {
	var work errgroup.Group
	work.SetLimit(s.cfg.AnswersAtOnce)
	defer work.Wait()
	buf := make([]byte, 64<<10)
	for {
		n, control, source, err := l.conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read port %d: %w", l.port, err)
		}
		from := source.(*net.UDPAddr).AddrPort()
		packet := append([]byte(nil), buf[:n]...)
		if !work.TryGo(func() error { s.handle(ctx, l, packet, control, from); return nil }) {
			s.log.Warn("dropped a network boot packet: too many at once", "from", from)
		}
	}
}

// handle answers one packet.
func (s *Server) handle(ctx context.Context, l *link, packet []byte, control *ipv4.ControlMessage, from netip.AddrPort) {
	local, err := s.local(control)
	if err != nil {
		s.log.Warn("cannot tell the appliance's address to a machine", "from", from, "err", err)
		return
	}
	r, m, err := Decode(packet, l.port, from.Addr(), local)
	if errors.Is(err, errForeign) {
		s.log.Debug("foreign DHCP packet", "from", from, "err", err)
		return
	}
	if err != nil {
		s.log.Warn("broken DHCP packet", "from", from, "err", err)
		return
	}
	answer := s.answer(ctx, r)
	mac := net.HardwareAddr(r.MAC[:]).String()
	s.log.Debug("network boot packet", "mac", mac, "type", r.Type.String(), "port", r.Port, "class", r.Class, "arch", r.Arch,
		"ipxe", r.IPXE, "addr", r.Addr, "relay", r.Relay, "told", r.Told, "file", answer.File)
	reply, err := Reply(m, r, answer)
	if reply == nil {
		if err != nil {
			s.log.Warn("no answer to a machine", "mac", mac, "err", err)
		}
		return
	}
	to, broadcast := Destination(m, r, from)
	if err := l.send(reply, to, broadcast, local, control); err != nil {
		s.log.Warn("answer not sent to a machine", "mac", mac, "to", to, "err", err)
	}
}

// send writes one packet from local. A broadcast leaves by the interface that the question came by.
func (l *link) send(m *dhcpv4.DHCPv4, to netip.AddrPort, broadcast bool, local netip.Addr, question *ipv4.ControlMessage) error {
	control := &ipv4.ControlMessage{Src: local.AsSlice()}
	if broadcast && question != nil {
		control.IfIndex = question.IfIndex
	}
	_, err := l.conn.WriteTo(m.ToBytes(), control, net.UDPAddrFromAddrPort(to))
	return err
}

// local is the appliance's address towards the sender of a packet.
func (s *Server) local(control *ipv4.ControlMessage) (netip.Addr, error) {
	if s.cfg.Addr.IsValid() {
		return s.cfg.Addr, nil
	}
	if control == nil {
		return netip.Addr{}, errors.New("the kernel does not tell which interface a packet came by; give an address")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, now := s.locals[control.IfIndex], time.Now()
	if now.Sub(l.at) < ownFresh {
		return l.addr, nil
	}
	addr, err := firstAddr(control.IfIndex)
	if err == nil {
		s.locals[control.IfIndex] = own{addr, now}
	}
	return addr, err
}

// ownFresh is how long an address is taken for the same: the kernel lists all interfaces for the question.
const ownFresh = time.Second

// firstAddr is the first IPv4 address of an interface.
func firstAddr(index int) (netip.Addr, error) {
	iface, err := net.InterfaceByIndex(index)
	if err != nil {
		return netip.Addr{}, err
	}
	addrs, err := iface.Addrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("interface %s has no IPv4 address", iface.Name)
}
