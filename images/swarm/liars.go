package swarm

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
)

// Liar is a peer that is barred for the rest of the run.
type Liar struct {
	Peer netip.AddrPort
	// Names are the URIs in its certificate. In an open swarm there are none: a peer is known by its address there, and all
	// that come from one address are barred together.
	Names []string
	What  string // "sent a wrong tile"
}

// maxLiars bounds the list; further peers are barred all the same.
const maxLiars = 64

// Liars returns the peers that were barred, the first ones first. Safe for concurrent use.
func (s *Swarm) Liars() []Liar {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.liars)
}

// bar refuses a peer for the rest of the run.
func (st *state) bar(l *link, what string, args ...any) {
	if st.banned[l.identity] {
		return
	}
	st.banned[l.identity] = true
	st.guests.bar(l.identity)
	liar := Liar{Peer: l.remote, Names: l.names(), What: what}
	args = append([]any{"peer", l.remote, "names", liar.Names, "certificate", fmt.Sprintf("%x", l.identity[:8])}, args...)
	st.cfg.Log.Warn("a peer "+what+"; it is barred", args...)
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.liars) < maxLiars {
		st.liars = append(st.liars, liar)
	}
}

// names returns the URIs of the peer's certificate.
func (l *link) names() (list []string) {
	if secure, ok := l.conn.Conn.(*tls.Conn); ok {
		for _, u := range secure.ConnectionState().PeerCertificates[0].URIs {
			list = append(list, u.String())
		}
	}
	return list
}
