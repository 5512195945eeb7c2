// Package tftp serves named files read-only (RFC 1350, 2347-2349) to firmware that is booting. What a name means is an
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
	"syscall"
	"time"

	"github.com/pin/tftp/v3"
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
	// RepeatAfter is how long an acknowledgement may take before a block is sent again; zero means 1 s. Firmware itself
	// waits 4 s (EDK2) or more.
	RepeatAfter time.Duration
	// BlockLength bounds the bytes of a block whatever a machine asks for; zero means what the interface carries.
	BlockLength int
	// TransfersAtOnce bounds the transfers in work, each with a socket and some 20 KB; what is above is refused. Zero means
	// 4,096: a machine has one or two, and one that vanished leaves its own after 6 s.
	TransfersAtOnce int
}

// tries bounds how often a block is sent to a machine that says nothing: it has vanished.
const tries = 6

// Server serves files. It is made by New, works in Run and is not for use after that.
type Server struct {
	conn net.PacketConn
	open Opener
	log  *slog.Logger
	cfg  Config
	work chan struct{} // holds one for each transfer
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
	listen := net.ListenConfig{Control: tellInterface}
	conn, err := listen.ListenPacket(context.Background(), "udp4", netip.AddrPortFrom(cfg.Addr, uint16(cfg.Port)).String())
	if err != nil {
		return nil, fmt.Errorf("listen for TFTP on UDP port %d: %w", cfg.Port, err)
	}
	return &Server{conn: conn, open: open, log: log, cfg: cfg, work: make(chan struct{}, cfg.TransfersAtOnce)}, nil
}

// tellInterface makes the kernel say with each packet where it came in, from the first one on (ip(7), IP_PKTINFO).
// The address goes into scripts; the interface's MTU bounds the blocks.
func tellInterface(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) })
	return errors.Join(err, failed)
}

// Addr is where the server listens.
func (s *Server) Addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Run serves until ctx ends, which is no error. It waits for the transfers in work: they end with
// their next block, or tries later where the machine has vanished.
func (s *Server) Run(ctx context.Context) error {
	server := tftp.NewServer(func(name string, to io.ReaderFrom) error { return s.transfer(ctx, name, to) }, nil)
	server.SetTimeout(s.cfg.RepeatAfter)
	server.SetBackoff(func(int) time.Duration { return 0 }) // the time-out is pause enough
	server.SetRetries(tries)
	if s.cfg.BlockLength > 0 {
		server.SetBlockSize(s.cfg.BlockLength)
	}
	var g errgroup.Group
	stopped := make(chan struct{})
	g.Go(func() error {
		defer close(stopped)
		return server.Serve(s.conn)
	})
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-stopped:
		}
		server.Shutdown()
		return nil
	})
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve TFTP: %w", err)
	}
	return nil
}

// transfer sends one file.
func (s *Server) transfer(ctx context.Context, name string, to io.ReaderFrom) error {
	out, ok := to.(tftp.OutgoingTransfer)
	if !ok {
		return errors.New("transfer without an address")
	}
	client := out.RemoteAddr()
	r := Request{Name: cleanName(name), Client: client.AddrPort()}
	if info, ok := to.(tftp.RequestPacketInfo); ok {
		if local, ok := netip.AddrFromSlice(info.LocalIP()); ok && !local.IsUnspecified() {
			r.Local = local.Unmap()
		}
	}
	log := s.log.With("client", r.Client, "file", r.Name)
	select {
	case s.work <- struct{}{}:
		defer func() { <-s.work }()
	default:
		log.Warn("TFTP file not served: too many transfers at once")
		return errors.New("the appliance is busy; start the machine again")
	}
	f, err := s.open(ctx, r)
	if errors.Is(err, ErrNotFound) {
		log.Debug("TFTP file asked for that does not exist")
		return ErrNotFound
	}
	if err != nil {
		log.Warn("TFTP file not served", "err", err)
		return errors.New("the appliance cannot serve this file now")
	}
	if c, ok := f.ReadSeeker.(io.Closer); ok {
		defer c.Close()
	}
	n, err := to.ReadFrom(&stoppable{f.ReadSeeker, ctx})
	if err != nil {
		// Firmware asks for the length first and breaks that transfer off on purpose.
		log.Debug("TFTP transfer ended early", "bytes", n, "err", err)
		return nil
	}
	log.Debug("TFTP transfer", "bytes", n)
	if f.Sent != nil {
		f.Sent()
	}
	return nil
}

// stoppable ends a transfer with its next block once ctx has ended. Owned by one transfer.
type stoppable struct {
	io.ReadSeeker
	ctx context.Context
}

func (s *stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.ReadSeeker.Read(p)
}
