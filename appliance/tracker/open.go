package tracker

import (
	"net/netip"
	"time"

	"seedbed/images"
)

// openExpiry is after how long without an announce a peer of an open swarm is forgotten: libtorrent announces every five
// minutes, whatever interval it is told.
const openExpiry = 16 * time.Minute

// Open lets anybody announce to a swarm, also over plain HTTP, under its v1 name and under the first 20 bytes of its
// v2 name: a client of a hybrid torrent uses either, or both. Doing it again is no error.
func (t *Tracker) Open(h images.InfoHash, v1 [20]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.swarm(h.Wire()); s != nil {
		s.open = true
		t.open[v1], t.open[h.Wire()] = h.Wire(), h.Wire()
	}
}

// Close takes back Open and forgets the swarm's peers.
func (t *Tracker) Close(h images.InfoHash, v1 [20]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, v1)
	delete(t.open, h.Wire())
	delete(t.swarms, h.Wire())
}

// openName returns the name in swarms of an open swarm.
func (t *Tracker) openName(wire [20]byte) (name [20]byte, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name, ok = t.open[wire]
	return name, ok
}

// ids returns the IDs of those of the peers that announced.
func (s *swarmPeers) ids(peers []netip.AddrPort) map[netip.AddrPort][20]byte {
	ids := map[netip.AddrPort][20]byte{}
	for _, p := range peers {
		if m, ok := s.machines[p]; ok {
			ids[p] = m.id
		}
	}
	return ids
}
