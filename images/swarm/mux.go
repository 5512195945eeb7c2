package swarm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Mux lets several swarms share one listener: the server name of the TLS handshake says which swarm a peer wants, and
// that swarm's TLS decides whether it may. Strangers who connect and say nothing cost a bounded number of connections
// and keep nobody else out. Safe for concurrent use.
type Mux struct {
	listener net.Listener
	log      *slog.Logger

	mu     sync.Mutex // guards what follows
	swarms map[string]reach
	open   map[[20]byte]reach            // open swarms, by their names in the handshake
	beside map[string]map[string]*beside // by server name and protocol, see Handle
}

// reach is a swarm, and by which of its endpoints it is reached here.
type reach struct {
	swarm *Swarm
	end   *endpoint
}

// NewMux returns a Mux on a TCP listener, which it owns from now on: Run closes it. Nil log discards.
func NewMux(l net.Listener, log *slog.Logger) *Mux {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Mux{listener: l, log: log, swarms: map[string]reach{}, open: map[[20]byte]reach{}, beside: map[string]map[string]*beside{}}
}

// Addr is the address that the Mux listens on.
func (m *Mux) Addr() netip.AddrPort { return addrPort(m.listener.Addr()) }

// Close closes the listener of a Mux that is never run.
func (m *Mux) Close() error { return m.listener.Close() }

// add makes the swarm reachable until the returned function is called.
func (m *Mux) add(s *Swarm, e *endpoint) (remove func(), err error) {
	if s.cfg.Open != nil {
		return m.addOpen(s, e)
	}
	name := ServerName(s.cfg.InfoHash)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.swarms[name].swarm != nil {
		return nil, fmt.Errorf("swarm %s runs already on %s", s.cfg.InfoHash, m.Addr())
	}
	m.swarms[name] = reach{s, e}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.swarms, name)
	}, nil
}

func (m *Mux) reach(name string) reach {
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
	pending := newPending()
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
		done, victim := pending.add(conn)
		if victim != nil {
			m.log.Debug("swarm handshake given up for a newer one", "peer", victim.RemoteAddr().String())
			victim.Close()
		}
		handshakes.Go(func() {
			defer done()
			m.serve(ctx, conn, done)
		})
	}
}

// serve finishes the TLS handshake, where the connection is for a closed swarm, says so by done, and gives the connection to
// its swarm.
func (m *Mux) serve(ctx context.Context, conn net.Conn, done func()) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	sorted, to, err := m.sort(conn, defaultTiming.handshake)
	stop()
	switch {
	case err != nil:
		m.log.Debug("swarm connection refused", "peer", conn.RemoteAddr().String(), "err", err)
		conn.Close()
		return
	case to.swarm != nil:
		done()
		to.swarm.accept(ctx, to.end, sorted)
		return
	}
	var other *beside
	server := tls.Server(&gather{Conn: sorted}, &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if other = m.handler(hello); other != nil {
				return other.tls, nil
			}
			if to = m.reach(hello.ServerName); to.swarm == nil {
				return nil, fmt.Errorf("no swarm is named %q here", hello.ServerName)
			}
			return to.swarm.cfg.TLS, nil
		},
	})
	limit, cancel := context.WithTimeout(ctx, defaultTiming.handshake)
	defer cancel()
	if err := server.HandshakeContext(limit); err != nil {
		m.log.Debug("swarm handshake refused", "peer", conn.RemoteAddr().String(), "err", err)
		conn.Close()
		return
	}
	done()
	if other != nil {
		other.serve(ctx, server)
		return
	}
	to.swarm.accept(ctx, to.end, server)
}

// pending are the connections that have not finished their TLS handshake. When there are too many, the address that
// has most of them loses its oldest: a flood from one address crowds out itself. Safe for concurrent use.
type pending struct {
	mu     sync.Mutex // guards the rest
	number int64      // of the last one
	count  int
	from   map[netip.Prefix][]stranger // oldest first
}

// stranger is one connection; number tells which came first.
type stranger struct {
	number int64
	conn   net.Conn
}

// maxHandshakes bounds the connections that have not finished their TLS handshake.
const maxHandshakes = 256

func newPending() *pending { return &pending{from: map[netip.Prefix][]stranger{}} }

// add takes a connection in until done is called, which may be called twice. victim, if not nil, is to be closed for it.
func (p *pending) add(conn net.Conn) (done func(), victim net.Conn) {
	source := sourceOf(conn)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count >= maxHandshakes {
		victim = p.evict()
	}
	p.number++
	number := p.number
	p.from[source] = append(p.from[source], stranger{number, conn})
	p.count++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.remove(source, number)
	}, victim
}

// evict takes out the oldest connection of the address that has most; of several such, the oldest of all.
func (p *pending) evict() net.Conn {
	var worst netip.Prefix
	for source, list := range p.from {
		w := p.from[worst]
		if len(list) > len(w) || len(list) == len(w) && list[0].number < w[0].number {
			worst = source
		}
	}
	victim := p.from[worst][0]
	p.remove(worst, victim.number)
	return victim.conn
}

func (p *pending) remove(source netip.Prefix, number int64) {
	list := p.from[source]
	i := slices.IndexFunc(list, func(s stranger) bool { return s.number == number })
	if i < 0 {
		return
	}
	p.count--
	if p.from[source] = slices.Delete(list, i, i+1); len(p.from[source]) == 0 {
		delete(p.from, source)
	}
}

// sourceOf returns what one host can connect from: an IPv4 address, or the 64 bits that it chooses its IPv6 addresses
// in (RFC 4291 §2.5.1).
func sourceOf(conn net.Conn) netip.Prefix {
	a := addrPort(conn.RemoteAddr()).Addr()
	bits := 32
	if a.Is6() {
		bits = 64
	}
	source, _ := a.Prefix(bits) // zero for what is no IP address: one source
	return source
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
