// Package tftp serves named files read-only (RFC 1350, 2347-2349, 7440) to firmware that is booting. What a name means is an
// Opener's business; this package knows transfers only.
package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Port of the protocol (RFC 1350 §4).
const Port = 69

// Request is what one machine asks for.
type Request struct {
	// Name is the file as asked for, cleaned by quirks: slashes only, no leading one, no stray bytes.
	Name string
	// Client is the machine.
	Client netip.AddrPort
	// Local is the appliance's address that the machine asked; invalid if the kernel does not tell.
	Local netip.Addr
}

// File is one answer.
type File struct {
	io.ReadSeeker
	// Sent, if set, is called once when the machine has acknowledged the last byte, on the transfer's goroutine.
	Sent func()
	// Ended, if set, is called once after the transfer, on its goroutine: with the bytes that the machine has acknowledged, and why it
	// ended early, if it did.
	Ended func(sent int64, err error)
}

// ErrNotFound is what an Opener returns (wrapped) for names it does not serve. The machine is told so; many ask for
// files that need not exist, hence it is no warning.
var ErrNotFound = errors.New("no such file here")

// Opener opens the file that a machine asks for. It is called on the transfer's goroutine, many at a time. A
// File.ReadSeeker that is an io.Closer is closed after the transfer.
type Opener func(ctx context.Context, r Request) (*File, error)

// Config says where a Server listens.
type Config struct {
	// Addr is the address to listen on; invalid means every IPv4 address of the host.
	Addr netip.Addr
	// Port replaces 69 where it is not zero.
	Port int
	// RepeatAfter is how long an acknowledgement may take at most before blocks are sent again; zero means 1 s. A machine that
	// answered fast so far is waited for shorter, down to a quarter. Firmware itself waits 4 s (EDK2) or more.
	RepeatAfter time.Duration
	// BlockLength bounds the bytes of a block whatever a machine asks for; zero means what the interface carries.
	BlockLength int
	// TransfersAtOnce bounds the transfers in work, each with a socket and up to 25 KB; what is above is refused. Zero means
	// 4,096: a machine has one or two, and one that vanished leaves its own after some 7 s.
	TransfersAtOnce int
	// TransfersOfOne bounds those of one address; zero means an eighth of TransfersAtOnce.
	TransfersOfOne int
}

// tries bounds how often blocks are sent to a machine that says nothing: it has vanished.
const tries = 7

// receiveBuffer is the room for requests that wait, in bytes: those of a room that is switched on at once. The kernel counts some
// 800 for each; its default holds 270.
const receiveBuffer = 4 << 20

// Server serves files. It is made by New, works in Run and is not for use after that.
type Server struct {
	conn *net.UDPConn
	open Opener
	log  *slog.Logger
	cfg  Config
	work chan struct{} // holds one for each transfer
	mtu  map[int]mtu   // by interface index; owned by Run

	mu sync.Mutex
	of map[netip.Addr]int // transfers in work, by client; guarded by mu
}

// mtu is how much an interface carries in a packet, in bytes, as it was at a time.
type mtu struct {
	length int
	at     time.Time
}

// New opens the port. log may be nil.
func New(cfg Config, open Opener, log *slog.Logger) (*Server, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if !cfg.Addr.IsValid() {
		cfg.Addr = netip.IPv4Unspecified()
	}
	if cfg.Port == 0 {
		cfg.Port = Port
	}
	if cfg.RepeatAfter == 0 {
		cfg.RepeatAfter = time.Second
	}
	if cfg.TransfersAtOnce == 0 {
		cfg.TransfersAtOnce = 4096
	}
	if cfg.TransfersOfOne == 0 {
		cfg.TransfersOfOne = max(1, cfg.TransfersAtOnce/8)
	}
	listen := net.ListenConfig{Control: prepare}
	conn, err := listen.ListenPacket(context.Background(), "udp4", netip.AddrPortFrom(cfg.Addr, uint16(cfg.Port)).String())
	if err != nil {
		return nil, fmt.Errorf("listen for TFTP on UDP port %d: %w", cfg.Port, err)
	}
	return &Server{conn: conn.(*net.UDPConn), open: open, log: log, cfg: cfg, work: make(chan struct{}, cfg.TransfersAtOnce), mtu: map[int]mtu{}, of: map[netip.Addr]int{}}, nil
}

// prepare makes the kernel say with each packet where it came in, from the first one on (ip(7), IP_PKTINFO), and keep many. The
// address goes into scripts; the interface's MTU bounds the blocks.
func prepare(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // as much as who is not root may have
		}
	})
	return errors.Join(err, failed)
}

// Addr is where the server listens.
func (s *Server) Addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Run serves until ctx ends, which is no error. Transfers in work end with it, and are waited for.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		return s.conn.Close()
	})
	g.Go(func() error { return s.read(ctx, g) })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("serve TFTP: %w", err)
	}
	return nil
}

// read takes requests, and gives each to a goroutine of its own.
func (s *Server) read(ctx context.Context, g *errgroup.Group) error {
	buf, oob := make([]byte, 2048), make([]byte, 256)
	for {
		n, oobn, _, client, err := s.conn.ReadMsgUDPAddrPort(buf, oob)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		q, err := parseRequest(buf[:n])
		if err != nil {
			s.log.Debug("TFTP packet not taken", "client", client, "err", err)
			continue
		}
		var control ipv4.ControlMessage
		if control.Parse(oob[:oobn]) != nil {
			control = ipv4.ControlMessage{}
		}
		r := Request{Name: cleanName(q.name), Client: netip.AddrPortFrom(client.Addr().Unmap(), client.Port()), Local: hostAddr(control.Dst)}
		limit := s.blockLimit(control.IfIndex)
		if leave, ok := s.enter(r.Client.Addr()); ok {
			g.Go(func() error {
				defer leave()
				s.serve(ctx, q, r, limit)
				return nil
			})
		} else {
			s.log.Warn("TFTP file not served: too many transfers at once", "client", r.Client, "file", r.Name)
			s.conn.WriteToUDPAddrPort(packError("the appliance is busy; start the machine again"), client)
		}
	}
}

// hostAddr is where a packet came to; invalid for a broadcast, from which nobody can answer.
func hostAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4())
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}
	}
	return a
}

// Headers of IPv4, UDP and TFTP's blocks, in bytes (RFC 791, RFC 768, RFC 1350 §5).
const headers = 20 + 8 + blockHeader

// mtuFresh is how long an interface's MTU is taken for the same.
const mtuFresh = 10 * time.Second

// blockLimit returns the longest block that an interface carries in one packet.
func (s *Server) blockLimit(index int) int {
	m, now := s.mtu[index], time.Now()
	if now.Sub(m.at) > mtuFresh {
		m = mtu{at: now}
		if nic, err := net.InterfaceByIndex(index); err == nil {
			m.length = nic.MTU
		}
		s.mtu[index] = m
	}
	limit := max(m.length-headers, defaultBlock)
	if s.cfg.BlockLength > 0 {
		limit = min(limit, max(s.cfg.BlockLength, defaultBlock))
	}
	return limit
}

// serve answers one request.
func (s *Server) serve(ctx context.Context, q *request, r Request, limit int) {
	log := s.log.With("client", r.Client, "file", r.Name)
	var from *net.UDPAddr
	if r.Local.IsValid() {
		from = &net.UDPAddr{IP: r.Local.AsSlice()}
	}
	// A socket for each transfer: its port is the transfer's identifier (RFC 1350 §4). Connected, it takes packets of this machine
	// alone, and tells when nobody listens there any more.
	conn, err := net.DialUDP("udp4", from, net.UDPAddrFromAddrPort(r.Client))
	if err != nil {
		log.Warn("TFTP file not served", "err", err)
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if q.mode != "octet" {
		log.Debug("TFTP transfer of text asked for", "mode", q.mode)
		conn.Write(packError("only binary transfers (octet)"))
		return
	}
	f, err := s.open(ctx, r)
	if errors.Is(err, ErrNotFound) {
		log.Debug("TFTP file asked for that does not exist")
		conn.Write(packError(ErrNotFound.Error()))
		return
	}
	if err != nil {
		log.Warn("TFTP file not served", "err", err)
		conn.Write(packError("the appliance cannot serve this file now"))
		return
	}
	if c, ok := f.ReadSeeker.(io.Closer); ok {
		defer c.Close()
	}
	t := &transfer{conn: conn, file: f, patience: s.cfg.RepeatAfter}
	err = t.run(q.options, limit)
	if f.Ended != nil {
		defer f.Ended(t.sent, err)
	}
	if err != nil {
		// Firmware asks for the length first and breaks that transfer off on purpose.
		log.Debug("TFTP transfer ended early", "bytes", t.sent, "err", err)
		return
	}
	log.Debug("TFTP transfer", "bytes", t.sent)
	if f.Sent != nil {
		f.Sent()
	}
}

// enter takes a place for a transfer, unless all are taken, or so many by this machine that it would keep others out.
func (s *Server) enter(client netip.Addr) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[client] >= s.cfg.TransfersOfOne {
		return nil, false
	}
	select {
	case s.work <- struct{}{}:
	default:
		return nil, false
	}
	s.of[client]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if <-s.work; s.of[client] == 1 {
			delete(s.of, client)
		} else {
			s.of[client]--
		}
	}, true
}
