package swarm

import (
	"net/netip"
	"slices"

	"seedbed/images/peerwire"
	"seedbed/images/schedule"
)

// This file holds what is said among those who hand out, see schedule.Handout.Meet.

// handOut makes the hand-out of what is held. It waits for a moment for others who hand out, so that they begin together.
func (st *state) handOut() {
	st.hand = schedule.NewHandout(st.data, st.cfg.Pieces.Count(), st.cfg.timing.isolated)
	st.hand.Name = string(st.cfg.PeerID[:])
	st.hand.Limit(st.net.uploadLimits())
	st.hand.Pace(0, st.count.total.Load()/int64(max(st.data.Len(), 1)))
	for i := range st.data.All() {
		if !st.have.Has(i) {
			st.hand.Lacks(i)
		}
	}
	st.awaited = map[netip.AddrPort]bool{}
	for _, a := range st.cfg.Seeds {
		st.awaited[netip.AddrPortFrom(a.Addr().Unmap(), a.Port())] = true
		st.hand.AwaitUntil = st.started.Add(st.cfg.timing.await)
	}
}

// met says that an address was reached, or tried in vain.
func (st *state) met(a netip.AddrPort) {
	delete(st.awaited, a)
	if st.hand != nil && len(st.awaited) == 0 && st.now.Before(st.hand.AwaitUntil) {
		st.hand.AwaitUntil = st.now
		st.show()
	}
}

// meet takes up another peer that hands out, and tells it what we hold and what we have shown.
func (st *state) meet(l *link) {
	l.Ready = true
	defer st.publish()
	defer st.met(l.dialled)
	if !l.appliance && !l.seed {
		st.cfg.Log.Warn("a peer hands out, and its certificate is not that of a seed node: nothing is shared with it", "peer", l.remote)
		return
	}
	l.fellow = true
	st.fellows = append(st.fellows, l)
	st.hand.Meet(l.id, string(l.peer[:]), l.Has)
	st.sendTile(l, peerwire.Holds{Bits: st.claims().Bitfield(st.cfg.Pieces.Count())})
	for _, s := range st.hand.Showings() {
		if guest := st.all[s.Guest]; guest != nil {
			st.sendTile(l, peerwire.Shown{Piece: s.Piece, Guest: guest.peer})
		}
	}
	st.feed(l)
}

// part takes a peer out of the hand-out.
func (st *state) part(l *link) {
	if st.hand == nil {
		return
	}
	st.hand.Leave(l.id)
	st.hand.Part(l.id)
	st.fellows = slices.DeleteFunc(st.fellows, func(o *link) bool { return o == l })
}

// promise tells the others what is shown to whom.
func (st *state) promise(guest *link, piece int) {
	for _, l := range slices.Clone(st.fellows) {
		st.sendTile(l, peerwire.Shown{Piece: piece, Guest: guest.peer})
	}
}

// takeBack tells the others which pieces are not expected to be announced any more.
func (st *state) takeBack() {
	for _, piece := range st.hand.TakenBack() {
		for _, l := range slices.Clone(st.fellows) {
			st.sendTile(l, peerwire.TakenBack{Piece: piece})
		}
	}
}

// mayAsk reports whether a link may be asked for pieces: another who hands out only while it has no machine to serve,
// as far as we see.
func (st *state) mayAsk(l *link) bool { return !l.fellow || !st.hand.Hungry(st.now) }

// receiveFellow takes what is said among those who hand out; from others it is of no meaning.
func (st *state) receiveFellow(l *link, message peerwire.TileMessage) error {
	if !l.fellow {
		return nil
	}
	n := st.cfg.Pieces.Count()
	switch m := message.(type) {
	case peerwire.Shown:
		if m.Piece < n {
			st.hand.Promised(l.id, m.Piece, st.guest(m.Guest), st.now)
		}
	case peerwire.TakenBack:
		if m.Piece < n {
			st.hand.TookBack(l.id, m.Piece)
			st.show()
		}
	case peerwire.Holds:
		has, err := schedule.ParseBitfield(m.Bits, n)
		if err != nil {
			return err
		}
		for piece := range has.All() {
			st.pull.Have(l.Source, piece, st.have.Has(piece))
			st.hand.FellowHolds(l.id, piece)
		}
		st.feed(l)
		st.show()
	}
	return nil
}

// guest returns the number of the link to a peer, 0 if there is none.
func (st *state) guest(peer [20]byte) int {
	for _, e := range st.net.ends {
		if l := st.byPeer[acquaintance{e, peer}]; l != nil {
			return l.id
		}
	}
	return 0
}
