package swarm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Mux lets several swarms share one listener: the server name of the TLS handshake says which swarm a peer wants, and
// that swarm's TLS decides whether it may. Safe for concurrent use.
type Mux struct {
	listener net.Listener
	log      *slog.Logger

	mu     sync.Mutex // guards swarms
	swarms map[string]*Swarm
}

// maxHandshakes bounds the connections that have not finished their TLS handshake.
const maxHandshakes = 256

// NewMux returns a Mux on a TCP listener, which it owns from now on: Run closes it. Nil log discards.
func NewMux(l net.Listener, log *slog.Logger) *Mux {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Mux{listener: l, log: log, swarms: map[string]*Swarm{}}
}

// Addr is the address that the Mux listens on.
func (m *Mux) Addr() netip.AddrPort { return addrPort(m.listener.Addr()) }

// Close closes the listener of a Mux that is never run.
func (m *Mux) Close() error { return m.listener.Close() }

// add makes the swarm reachable until the returned function is called.
func (m *Mux) add(s *Swarm) (remove func(), err error) {
	name := ServerName(s.cfg.InfoHash)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.swarms[name] != nil {
		return nil, fmt.Errorf("swarm %s runs already on %s", s.cfg.InfoHash, m.Addr())
	}
	m.swarms[name] = s
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.swarms, name)
	}, nil
}

func (m *Mux) swarm(name string) *Swarm {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.swarms[name]
}

// Run accepts connections until ctx ends or the listener fails, hands each to its swarm, and waits for the handshakes
// that it began. It closes the listener.
func (m *Mux) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { m.listener.Close() })
	defer stop()
	defer m.listener.Close()
	var handshakes sync.WaitGroup
	defer handshakes.Wait()
	slots := make(chan struct{}, maxHandshakes)
	for {
		conn, err := m.listener.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", m.Addr(), err)
		case err != nil: // out of file descriptors, or the peer was gone before we looked: neither ends a listener
			m.log.Warn("swarm connection not accepted", "err", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			conn.Close()
			return nil
		}
		handshakes.Go(func() {
			defer func() { <-slots }()
			m.serve(ctx, conn)
		})
	}
}

// serve finishes the TLS handshake and gives the connection to its swarm.
func (m *Mux) serve(ctx context.Context, conn net.Conn) {
	var s *Swarm
	server := tls.Server(conn, &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if s = m.swarm(hello.ServerName); s == nil {
				return nil, fmt.Errorf("no swarm is named %q here", hello.ServerName)
			}
			return s.cfg.TLS, nil
		},
	})
	ctx, cancel := context.WithTimeout(ctx, defaultTiming.handshake)
	defer cancel()
	if err := server.HandshakeContext(ctx); err != nil {
		m.log.Debug("swarm handshake refused", "peer", conn.RemoteAddr().String(), "err", err)
		conn.Close()
		return
	}
	s.accept(ctx, server)
}

// addrPort returns the IP address and port of a TCP address, the zero value of another one.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
