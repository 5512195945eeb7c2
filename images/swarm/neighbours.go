package swarm

import (
	"maps"
	"net/netip"
	"slices"

	"seedbed/images/announce"
	"seedbed/images/peerwire"
	"seedbed/images/schedule"
)

// Neighbours are all peers that a swarm may be linked with, as a topology has it.
type Neighbours struct {
	// Peers are what each is to us, by address.
	Peers map[netip.AddrPort]announce.Role
	// Grouped says that a peer which is not among them may be one of another group: nothing is asked of it.
	Grouped bool
	// Share are the pieces that are fetched from peers upstream.
	Share schedule.Share
	// BytesPerSecond bounds what comes from all peers upstream together, at least MinLimit; zero is no limit.
	BytesPerSecond int64
	// MaxConnections bounds the links, for each endpoint; zero leaves it to Config.MaxLinks.
	MaxConnections int
}

// graceAnswers is how many answers may leave out a peer before the link to it is closed: both ends are told of a new link,
// and of one that is no more, by announces of their own.
const graceAnswers = 2

// SetNeighbours replaces all addresses known, Config.Seeds and those of AddPeers among them: others are not dialled any
// more, whatever AddPeers says, and links to them are closed when a second call leaves them out too. Who hands out takes
// it as AddPeers. nil makes addresses count again. It never blocks.
func (s *Swarm) SetNeighbours(n *Neighbours) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setNeighbours(n)
}

// setNeighbours is SetNeighbours; the caller holds mu.
func (s *Swarm) setNeighbours(n *Neighbours) {
	s.neighbours, s.newNeighbours = n, true
	s.notify()
}

// Answered takes the answer of a tracker, which is named by a word of the caller's: addresses, or neighbours. Where several
// trackers answered, or one to several endpoints, neighbours are those of all of them. It never blocks.
func (s *Swarm) Answered(tracker string, answer announce.Response) {
	s.mu.Lock()
	_, known := s.answers[tracker]
	if answer.Links != nil {
		s.answers[tracker] = answer
		s.setNeighbours(join(s.answers))
	} else if delete(s.answers, tracker); known {
		s.setNeighbours(join(s.answers))
	}
	s.mu.Unlock()
	if answer.Links == nil {
		s.AddPeers(answer.Peers)
	}
}

// join makes one list of what several trackers said; nil of none. What they say differently counts as the first says it, in
// the order of their names.
func join(answers map[string]announce.Response) *Neighbours {
	if len(answers) == 0 {
		return nil
	}
	n := &Neighbours{Peers: map[netip.AddrPort]announce.Role{}}
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		a := answers[name]
		for i, p := range a.Peers {
			if _, known := n.Peers[p]; !known {
				n.Peers[p] = a.Links.Roles[i]
			}
		}
		if share := schedule.Share(a.Links.Share); n.Share.Members == 0 {
			n.Share, n.BytesPerSecond = share, a.Links.BytesPerSecond
		}
		n.Grouped = n.Grouped || a.Links.Grouped
		n.MaxConnections = max(n.MaxConnections, a.Links.MaxConnections)
	}
	return n
}

// takeNeighbours returns what SetNeighbours was given last; ok is false if that was taken before.
func (s *Swarm) takeNeighbours() (n *Neighbours, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ok, s.newNeighbours = s.newNeighbours, false
	return s.neighbours, ok
}

// settle makes a list of neighbours count, or its absence.
func (st *state) settle(n *Neighbours) {
	switch {
	case st.hand != nil:
		for _, b := range st.books {
			for a := range n.peers() {
				b.add(a, false)
			}
		}
		return
	case n == nil:
		st.named, st.pull.Imports, st.upward = nil, nil, nil
		for _, b := range st.books {
			b.reopen(st.cfg.Seeds)
		}
	default:
		st.named, st.pull.Imports, st.upward = n.peers(), n.Share.Imports, st.upwardPacer(n.BytesPerSecond)
		st.grouped, st.maxNamed = n.Grouped, n.MaxConnections*len(st.net.ends)
		for _, b := range st.books {
			b.replace(st.named)
		}
	}
	for _, l := range st.all {
		st.relate(l)
		if l.unnamed {
			l.leftOut++
		}
		if l.leftOut >= graceAnswers && st.linked(l) {
			st.leave(l, "is no neighbour any more", nil)
		}
	}
	st.feedAll()
}

// peers returns the neighbours by address as links have it.
func (n *Neighbours) peers() map[netip.AddrPort]announce.Role {
	m := map[netip.AddrPort]announce.Role{}
	if n != nil {
		for a, role := range n.Peers {
			m[unmapped(a)] = role
		}
	}
	return m
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// upwardPacer returns what reads from peers upstream wait for; nil for no limit. A limit that is the same keeps its bucket.
func (st *state) upwardPacer(bytesPerSecond int64) *pacer {
	if bytesPerSecond <= 0 {
		return nil
	}
	bytesPerSecond = max(bytesPerSecond, MinLimit)
	p := newPacer(newBucket(bytesPerSecond))
	if st.upward != nil && st.upward.rate == p.rate {
		return st.upward
	}
	return &p
}

// relate makes the link what the list of neighbours says. A peer that is not named is served for a while, as it may have been
// told of us before we were told of it; it is asked for something only where all machines are of one group, or if it is a seed
// node: those dial whom they may serve.
func (st *state) relate(l *link) {
	role, named := st.named[l.address]
	l.unnamed = st.named != nil && !named
	if !l.unnamed {
		l.leftOut = 0
	}
	l.Upstream = named && role == announce.Upstream
	l.ServedOnly = named && role == announce.Downstream || l.unnamed && st.grouped && !l.seed
	l.upward.Store(nil)
	if named {
		st.bookOf(l).linked(l.address)
		if l.Upstream {
			l.upward.Store(st.upward)
		}
	}
	for _, a := range l.asks {
		if l.ServedOnly && st.linked(l) {
			st.sendTile(l, peerwire.Cancel{Piece: a.piece, Tiles: a.asked[l]})
			st.giveBack(l, a)
		}
	}
}

// stranger reports whether a link that we dialled leads to a peer that is no neighbour.
func (st *state) stranger(l *link) bool {
	_, named := st.named[l.dialled]
	return st.named != nil && l.dialled.IsValid() && !named
}

// makeRoom reports whether one more link may be open. Where there are as many as neighbours may be, one to a peer that is
// not named goes.
func (st *state) makeRoom() bool {
	if st.named == nil || st.maxNamed == 0 || len(st.all) < st.maxNamed {
		return true
	}
	var worst *link
	for _, o := range st.all {
		if o.unnamed && (worst == nil || o.leftOut > worst.leftOut || o.leftOut == worst.leftOut && o.id < worst.id) {
			worst = o
		}
	}
	if worst != nil {
		st.leave(worst, "makes room for a neighbour", nil)
	}
	return worst != nil
}
