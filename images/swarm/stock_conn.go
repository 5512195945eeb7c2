package swarm

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
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
	mine := peerwire.Handshake{Reserved: peerwire.Features(), InfoHash: s.cfg.Open.V1, PeerID: e.peerID}
	send := func() error { _, err := conn.Write(mine.Append(nil)); return err }
	if dialled.IsValid() {
		if err := send(); err != nil {
			return nil, err
		}
	}
	theirs, err := peerwire.ReadHandshake(conn)
	if err != nil {
		return nil, err
	}
	if names := s.cfg.Open.names(s.cfg.InfoHash); theirs.InfoHash != names[0] && theirs.InfoHash != names[1] {
		return nil, fmt.Errorf("handshake for swarm %x", theirs.InfoHash)
	}
	if !dialled.IsValid() {
		mine.InfoHash = theirs.InfoHash
		if err := send(); err != nil {
			return nil, err
		}
	}
	conn.SetDeadline(time.Time{})
	return &link{
		peer: theirs.PeerID, appliance: s.fromSeeds(dialled), identity: identityOf(conn), fast: theirs.Fast(), extended: theirs.Extended(),
	}, nil
}

// addOpen makes an open swarm reachable under its names until the returned function is called.
func (m *Mux) addOpen(s *Swarm, e *endpoint) (remove func(), err error) {
	names := s.cfg.Open.names(s.cfg.InfoHash)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open[names[0]].swarm != nil || m.open[names[1]].swarm != nil {
		return nil, fmt.Errorf("open swarm %x runs already on %s", names[0], m.Addr())
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
