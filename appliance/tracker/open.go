package tracker

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"seedbed/images"
	"seedbed/images/announce"
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
		s.open, s.top = true, nil
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

// answerOpen tells a peer of an open swarm of every seeder, and of others at random; one that holds everything only of those
// that lack something. Of a policy only what it forbids counts: stock clients know no groups.
func (t *Tracker) answerOpen(s *swarmPeers, m *machine, answer *announce.Response) {
	for b, o := range s.machines {
		if o != m && (m.left > 0 || o.left > 0) && t.cfg.Policy.MayLink(m.who, o.who) {
			answer.Peers = append(answer.Peers, b)
		}
	}
	rand.Shuffle(len(answer.Peers), func(i, j int) {
		answer.Peers[i], answer.Peers[j] = answer.Peers[j], answer.Peers[i]
	})
	if want := t.cfg.Want; len(answer.Peers) > want {
		answer.Peers = answer.Peers[:want]
	}
	if t.cfg.Policy.MayLinkAppliance(m.who) {
		answer.Peers = append(slices.Clone(s.seeds), answer.Peers...)
	}
	if answer.Dictionary {
		answer.IDs = s.ids(answer.Peers)
	}
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
