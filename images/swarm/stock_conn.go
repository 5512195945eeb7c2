package swarm

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"seedbed/images/peerwire"
)

// session is a connection on which the BitTorrent handshake comes next: *tls.Conn, or plain in an open swarm.
type session interface {
	net.Conn
	// NetConn returns the TCP connection below.
	NetConn() net.Conn
}

// plain is a connection of an open swarm. What was read of it to find the swarm comes again.
type plain struct {
	net.Conn
	ahead *bytes.Reader
}

func (p plain) NetConn() net.Conn { return p.Conn }

func (p plain) Read(b []byte) (int, error) {
	if p.ahead != nil && p.ahead.Len() > 0 {
		return p.ahead.Read(b)
	}
	return p.Conn.Read(b)
}

// handshakeOpen exchanges handshakes under one of the swarm's names: the one that the peer chose, or V1.
func (s *Swarm) handshakeOpen(e *endpoint, conn session, dialled netip.AddrPort) (*link, error) {
	conn.SetDeadline(time.Now().Add(s.cfg.timing.handshake))
	mine := peerwire.Handshake{Reserved: peerwire.OnlyV1(peerwire.Features()), InfoHash: s.cfg.Open.V1, PeerID: e.peerID}
	send := func() error { _, err := conn.Write(mine.Append(nil)); return err }
	if dialled.IsValid() {
		if s.plain.has(dialled) {
			mine.InfoHash = s.cfg.Open.Plain
		}
		if err := send(); err != nil {
			return nil, err
		}
	}
	theirs, err := peerwire.ReadHandshake(conn)
	if err != nil {
		if dialled.IsValid() && s.cfg.Open.Plain != [20]byte{} {
			s.plain.flip(dialled)
		}
		return nil, err
	}
	if !slices.Contains(s.cfg.Open.names(s.cfg.InfoHash), theirs.InfoHash) {
		return nil, fmt.Errorf("handshake for swarm %x", theirs.InfoHash)
	}
	if !dialled.IsValid() {
		if mine.InfoHash = theirs.InfoHash; mine.InfoHash == s.cfg.InfoHash.Wire() {
			mine.Reserved = peerwire.Features()
		}
		if err := send(); err != nil {
			return nil, err
		}
	}
	conn.SetDeadline(time.Time{})
	return &link{
		name: theirs.InfoHash, peer: theirs.PeerID, appliance: s.fromSeeds(dialled), identity: identityOf(conn),
		fast: theirs.Fast(), extended: theirs.Extended(),
	}, nil
}

// plainPeers are addresses that did not answer to the hybrid name the last time, and are greeted by the plain one. Safe for
// concurrent use.
type plainPeers struct {
	mu   sync.Mutex // guards list
	list map[netip.AddrPort]bool
}

func (p *plainPeers) has(a netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list[a]
}

// flip takes the other name the next time.
func (p *plainPeers) flip(a netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.list[a] {
		delete(p.list, a)
		return
	}
	if p.list == nil || len(p.list) >= maxAddresses {
		p.list = map[netip.AddrPort]bool{}
	}
	p.list[a] = true
}

// addOpen makes an open swarm reachable under its names until the returned function is called.
func (m *Mux) addOpen(s *Swarm, e *endpoint) (remove func(), err error) {
	names := s.cfg.Open.names(s.cfg.InfoHash)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range names {
		if m.open[n].swarm != nil {
			return nil, fmt.Errorf("open swarm %x runs already on %s", n, m.Addr())
		}
	}
	for _, n := range names {
		m.open[n] = reach{s, e}
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, n := range names {
			delete(m.open, n)
		}
	}, nil
}

func (m *Mux) openReach(name [20]byte) reach {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open[name]
}

// sort tells whether the connection is for an open swarm, by its first byte: the length of the protocol's name (BEP 3), where a
// TLS record (RFC 8446 §5.1) of a handshake begins with 22. Others, encrypted BitTorrent among them, are neither; stock
// clients try again without encryption.
func (m *Mux) sort(conn net.Conn, limit time.Duration) (_ session, to reach, err error) {
	conn.SetDeadline(time.Now().Add(limit))
	first := make([]byte, 1, peerwire.HandshakeLength)
	if _, err := io.ReadFull(conn, first); err != nil {
		return nil, to, err
	}
	ahead := first
	if first[0] == peerwire.HandshakeFirst {
		ahead = first[:peerwire.HandshakeLength]
		// Clients wait for an answer behind the InfoHash, so that all of it need not be here; none of today does.
		if _, err := io.ReadFull(conn, ahead[1:]); err != nil {
			return nil, to, err
		}
		h, err := peerwire.ReadHandshake(bytes.NewReader(ahead))
		if err != nil {
			return nil, to, err
		}
		if to = m.openReach(h.InfoHash); to.swarm == nil {
			return nil, to, fmt.Errorf("no open swarm is named %x here", h.InfoHash)
		}
	}
	return plain{conn, bytes.NewReader(ahead)}, to, nil
}
