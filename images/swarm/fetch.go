package swarm

import (
	"fmt"
	"time"

	"seedbed/images"
	"seedbed/images/peerwire"
	"seedbed/images/schedule"
)

// feed asks a peer for pieces, if it has some that we lack and is not busy with others.
func (st *state) feed(l *link) {
	l.waitMemory = false
	for st.linked(l) && st.mayAsk(l) {
		piece, ok := st.pull.Next(l.Source)
		if !ok {
			st.endgame(l)
			return
		}
		if !st.ask(l, piece) {
			return
		}
	}
}

// linked reports whether the link is still there: sending on it may end it.
func (st *state) linked(l *link) bool { return st.all[l.id] == l }

func (st *state) feedAll() {
	for _, l := range st.all {
		st.feed(l)
	}
}

// ask requests the tiles of a piece that are lacking and that the peer has; false says that there is no memory, or
// that the piece has to wait for others.
func (st *state) ask(l *link, piece int) bool {
	if l.stock != nil && !st.prepareStock(l, piece) {
		return false
	}
	a := st.assemblies[piece]
	if a == nil {
		need, again, early := st.needOf(l, piece)
		n := st.lengthOf(piece, need)
		if early {
			n = 0 // its hashes come first; then less may be needed
		}
		for !st.memory.reserve(n) {
			if !st.abandon() {
				l.waitMemory = true
				return false
			}
		}
		a = newAssembly(piece, need, n)
		a.early, a.again = early, again
		st.assemblies[piece] = a
	}
	tiles := l.gives(a)
	if tiles.IsEmpty() {
		l.Useless(piece)
		if len(a.asked) == 0 {
			st.giveBack(l, a)
		}
		return true
	}
	a.asked[l], l.asks[piece] = tiles, a
	l.asked = st.now
	st.pull.Ask(l.Source, piece, a.reserved, st.now)
	if a.early {
		st.sendTile(l, peerwire.Request{Piece: piece, Hashes: true})
		return true
	}
	hashes := a.hashes == nil && st.cfg.Storage.TileHashes(piece) == nil
	st.sendTile(l, peerwire.Request{Piece: piece, Hashes: hashes, Tiles: tiles})
	st.foretell(l, a)
	return true
}

// giveBack says that the link sends nothing more of a piece. If nobody else does, the piece waits for another peer with
// what arrived, or is forgotten if nothing did.
func (st *state) giveBack(l *link, a *assembly) {
	st.answered(l, a)
	if a.checking || len(a.asked) > 0 || st.assemblies[a.piece] != a {
		return
	}
	st.pull.GiveBack(a.piece, !a.got.IsEmpty())
	if a.got.IsEmpty() {
		st.forget(a)
	}
}

// answered says that nothing more of a piece is outstanding on a link.
func (st *state) answered(l *link, a *assembly) {
	delete(a.asked, l)
	delete(l.asks, a.piece)
	if a.foretold != nil && a.foretold.from == l && !a.lacks().IsEmpty() {
		st.belie(a)
	}
	st.pull.Answered(l.Source, a.piece)
	if l.stock != nil {
		st.dropStock(l, a.piece)
	}
}

// forget drops an assembly and its memory.
func (st *state) forget(a *assembly) {
	delete(st.assemblies, a.piece)
	st.belie(a)
	st.memory.release(a.reserved)
}

// abandon forgets the oldest piece that was begun and that nobody is asked for, to make room; false if there is none.
func (st *state) abandon() bool {
	piece, ok := st.pull.Oldest()
	if !ok {
		return false
	}
	st.discard(st.assemblies[piece])
	return true
}

// discard forgets a piece that was begun and that nobody is asked for.
func (st *state) discard(a *assembly) {
	for i := range a.got.All() {
		st.count.wasted.Add(int64(len(a.tiles[i].Bytes)))
	}
	st.pull.GiveBack(a.piece, false)
	st.forget(a)
}

// judge deals with a piece that a worker checked.
func (st *state) judge(v verdict) {
	a := v.a
	a.checking = false
	switch {
	case v.err != nil:
		st.err = v.err
		return
	case v.badHashes:
		st.blame(a.hashesFrom, a.piece, "sent wrong tile hashes")
		a.hashes, a.hashesFrom = nil, nil
		a.drop(a.got)
	case !v.bad.IsEmpty():
		st.count.tiles.Add(int64(a.need.Len()))
		st.count.wrongTiles.Add(int64(v.bad.Len()))
		for i := range v.bad.All() {
			st.blame(a.from[i], a.piece, "sent a wrong tile")
		}
		a.drop(v.bad)
	default:
		st.count.tiles.Add(int64(a.need.Len()))
		st.hold(a, v.written)
		return
	}
	st.belie(a)
	st.pull.GiveBack(a.piece, !a.got.IsEmpty())
	if a.got.IsEmpty() {
		st.forget(a)
	}
	st.feedAll()
}

// blame bars a peer that lied. An appliance is not barred: without it nothing goes on, but the piece is not asked of it
// for a while.
func (st *state) blame(l *link, piece int, what string) {
	if l == nil {
		return
	}
	if l.appliance {
		if !l.Refused(piece) {
			st.count.damaged.Add(1)
			st.cfg.Log.Warn("the appliance "+what+"; verify the image there", "peer", l.remote, "piece", piece)
		}
		l.Refuse(piece)
		return
	}
	st.bar(l, what, "piece", piece)
	st.leave(l, what, nil)
}

// hold takes note of a piece that is whole and written, and tells everyone.
func (st *state) hold(a *assembly, written int64) {
	was := a.foretold
	a.foretold = nil
	st.forget(a)
	if st.wanted(a.piece) {
		st.memory.keep(a.piece, a.indexed())
	} else {
		a.recycle()
	}
	st.count.written.Add(written)
	st.count.held.Add(written - st.lengthOf(a.piece, a.again))
	st.announce(a.piece, st.fulfil(was))
	for _, l := range st.all {
		if l.waitMemory {
			st.feed(l)
		}
	}
	st.completed()
}

// wanted reports whether a peer may ask for a piece: it is linked, and is not known to hold it.
func (st *state) wanted(piece int) bool {
	for _, l := range st.all {
		if !l.HandsOut && !l.fellow && !l.Has.Has(piece) {
			return true
		}
	}
	return false
}

// announce tells everyone of a piece that is whole but those who were told before.
func (st *state) announce(piece int, told map[*link]bool) {
	st.have.Add(piece)
	st.pull.Hold(piece)
	if st.hand != nil {
		st.hand.Holds(piece)
	}
	for _, l := range st.all {
		switch {
		case told[l]:
		case st.hand != nil && !l.fellow && (!l.part || l.tells || l.tileKind.Load() == 0): // it is shown it, or told by greetPart
		case st.hand == nil && l.content(st.have, piece):
			st.sendLate(l, peerwire.Have(piece))
		default:
			st.send(l, peerwire.Have(piece))
		}
	}
	st.show()
}

// contentWith is of how many pieces a peer can choose that need not hear of another at once.
const contentWith = 8

// content reports whether the peer need not hear at once that we have a piece: it has it, or is known to lack enough others
// that we have; who hands out need not unless it showed us that piece. In a room each piece is announced to eight neighbours,
// of whom hardly one asks for it: one by one these messages took a third of all writes.
func (l *link) content(have schedule.Set, piece int) bool {
	switch {
	case l.stock != nil || !l.Ready:
		return false
	case l.HandsOut:
		return !l.Has.Has(piece)
	}
	return l.Has.Has(piece) || l.Has.LacksMany(have, contentWith)
}

// completed makes everything durable if nothing is lacking any more.
func (st *state) completed() {
	if st.pull.Lacking() > 0 {
		return
	}
	for _, l := range st.all {
		st.send(l, peerwire.NotInterested)
	}
	st.sync()
}

// sync makes everything durable, once.
func (st *state) sync() {
	if st.syncing {
		return
	}
	st.syncing = true
	st.group.Go(func() { st.tell(synced{st.cfg.Storage.Sync()}) })
}

func (st *state) finish(err error) {
	if err != nil {
		st.err = fmt.Errorf("sync: %w", err)
		return
	}
	st.publish()
	st.cfg.Log.Info("all pieces are held", "pieces", st.cfg.Pieces.Count(), "after", st.now.Sub(st.started).Round(time.Millisecond))
	close(st.done)
}

// endgame lets an idle link fetch what another one is slow to send, once every piece is being fetched.
func (st *state) endgame(l *link) {
	if piece, ok := st.pull.Endgame(l.Source, st.now, st.cfg.timing.stall); ok {
		st.ask(l, piece)
	}
}

// gives returns those of the lacking tiles that the peer has.
func (l *link) gives(a *assembly) images.TileSet {
	if l.Has.Has(a.piece) {
		return a.lacks()
	}
	return a.lacks().Intersect(l.partial[a.piece])
}
