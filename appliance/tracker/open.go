package tracker

import (
	"maps"
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

// openName is what a name of an open swarm stands for.
type openName struct {
	swarm [20]byte // the name in swarms
	plain bool
}

// Open lets anybody announce to a swarm, also over plain HTTP: under the v1 name of its hybrid torrent, under the first 20
// bytes of the v2 name, and under plain, the name of its v1 torrent. A client of the hybrid torrent uses either of its names,
// or both. Doing it again is no error.
func (t *Tracker) Open(h images.InfoHash, v1, plain [20]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.swarm(h.Wire()); s != nil {
		s.open, s.top, s.desk = true, nil, nil
		t.open[plain] = openName{h.Wire(), true}
		t.open[v1], t.open[h.Wire()] = openName{swarm: h.Wire()}, openName{swarm: h.Wire()}
	}
}

// Close takes back Open and forgets the swarm's peers.
func (t *Tracker) Close(h images.InfoHash) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.open, func(_ [20]byte, o openName) bool { return o.swarm == h.Wire() })
	delete(t.swarms, h.Wire())
}

// openName returns what a name of an open swarm stands for.
func (t *Tracker) openName(wire [20]byte) (name openName, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name, ok = t.open[wire]
	return name, ok
}

// meets reports whether two machines know each other's name of the swarm; ours know all of them.
func (m *machine) meets(o *machine) bool { return m.plain == o.plain || m.ours() || o.ours() }

// ours reports whether a peer is one of Seedbed's, by its ID (BEP 20).
func (m *machine) ours() bool { return string(m.id[:3]) == "-SB" }

// answerOpen tells a peer of an open swarm of every seeder, and of others at random; one that holds everything only of those
// that lack something. Of a policy only what it forbids counts: stock clients know no groups.
func (t *Tracker) answerOpen(s *swarmPeers, m *machine, answer *announce.Response) {
	for b, o := range s.machines {
		if o != m && m.meets(o) && (m.left > 0 || o.left > 0) && t.cfg.Policy.MayLink(m.who, o.who) {
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
